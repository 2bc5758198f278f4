//! The traits by which Diesel's own code and its friends know a connection.

use std::any::Any;

#[cfg(feature = "postgres")]
use diesel::PgConnection;
use diesel::QueryResult;
#[cfg(feature = "sqlite")]
use diesel::SqliteConnection;
use diesel::associations::HasTable;
use diesel::connection::{Connection, MultiConnectionHelper, WithMetadataLookup};
use diesel::dsl::Update;
use diesel::expression::{MixedAggregates, ValidGrouping, is_aggregate};
use diesel::migration::MigrationConnection;
#[cfg(feature = "postgres")]
use diesel::pg::{GetPgMetadataCache, PgMetadataCache};
use diesel::query_builder::{AsChangeset, IntoUpdateTarget};
use diesel::query_dsl::{LoadQuery, RunQueryDsl, UpdateAndFetchResults};
use diesel::sql_types::TypeMetadata;
use diesel::{Identifiable, Table};
#[cfg(feature = "sqlite")]
use diesel::{
    dsl::Find,
    query_dsl::methods::{ExecuteDsl, FindDsl},
};

use super::backend::Inner;
use super::connection::SyncConnection;

type Lookup<C> = <<C as Connection>::Backend as TypeMetadata>::MetadataLookup;

impl<C: Inner + MigrationConnection> MigrationConnection for SyncConnection<C> {
    fn setup(&mut self) -> QueryResult<usize> {
        self.inner.setup()
    }
}

impl<C: Inner + WithMetadataLookup> WithMetadataLookup for SyncConnection<C> {
    fn metadata_lookup(&mut self) -> &mut Lookup<C> {
        self.inner.metadata_lookup()
    }
}

impl<C: Inner + MultiConnectionHelper> MultiConnectionHelper for SyncConnection<C> {
    fn to_any<'a>(lookup: &mut Lookup<C>) -> &mut (dyn Any + 'a) {
        C::to_any(lookup)
    }

    fn from_any(lookup: &mut dyn Any) -> Option<&mut Lookup<C>> {
        C::from_any(lookup)
    }
}

#[cfg(feature = "postgres")]
impl<C: Inner + GetPgMetadataCache> GetPgMetadataCache for SyncConnection<C> {
    fn get_metadata_cache(&mut self) -> &mut PgMetadataCache {
        self.inner.get_metadata_cache()
    }
}

/// As Diesel's own for `PgConnection`.
#[cfg(feature = "postgres")]
impl<'b, Changes, Output> UpdateAndFetchResults<Changes, Output> for SyncConnection<PgConnection>
where
    Changes: Copy + AsChangeset<Target = <Changes as HasTable>::Table> + IntoUpdateTarget,
    Update<Changes, Changes>: LoadQuery<'b, Self, Output>,
    <Changes::Table as Table>::AllColumns: ValidGrouping<()>,
    <<Changes::Table as Table>::AllColumns as ValidGrouping<()>>::IsAggregate:
        MixedAggregates<is_aggregate::No, Output = is_aggregate::No>,
{
    fn update_and_fetch(&mut self, changeset: Changes) -> QueryResult<Output> {
        diesel::update(changeset).set(changeset).get_result(self)
    }
}

/// As Diesel's own for `SqliteConnection`.
#[cfg(feature = "sqlite")]
impl<'b, Changes, Output> UpdateAndFetchResults<Changes, Output> for SyncConnection<SqliteConnection>
where
    Changes: Copy + Identifiable,
    Changes: AsChangeset<Target = <Changes as HasTable>::Table> + IntoUpdateTarget,
    Changes::Table: FindDsl<Changes::Id>,
    Update<Changes, Changes>: ExecuteDsl<Self>,
    Find<Changes::Table, Changes::Id>: LoadQuery<'b, Self, Output>,
    <Changes::Table as Table>::AllColumns: ValidGrouping<()>,
    <<Changes::Table as Table>::AllColumns as ValidGrouping<()>>::IsAggregate:
        MixedAggregates<is_aggregate::No, Output = is_aggregate::No>,
{
    fn update_and_fetch(&mut self, changeset: Changes) -> QueryResult<Output> {
        diesel::update(changeset).set(changeset).execute(self)?;
        Changes::table().find(changeset.id()).get_result(self)
    }
}
