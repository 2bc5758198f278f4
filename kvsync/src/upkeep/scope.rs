//! Which rows a scope has, and whether that is known.

use crate::error::{Error, ErrorKind, Result};
use crate::key::Scope;
use crate::model::{Kind, Schema, Source};
use crate::worker::Access;

/// Whether the rows of a scope are known.
///
/// # Errors
///
/// [`ErrorKind::Config`] where connections choose the scope of rows in one table: all of them would be taken for
/// those of this scope, and copies of other tenants' rows would stand in it that no later write of these reaches.
pub(crate) fn known(source: &dyn Source, schema: &Schema, scope: &Scope) -> Result<()> {
    if scope.is_none() || source.tells_scopes() {
        return Ok(());
    }
    let (scope, table, name) = (scope.prefix(), schema.table, source.name());
    let message = format!(
        "which rows of `{table}` are those of the scope `{scope}` is not known: connections choose it, so the table may \
         hold rows of several; if all rows of the database `{name}` are of this scope, call `.single_tenant()` on it"
    );
    Err(Error::new(ErrorKind::Config, message))
}

/// The same for each of these models, all that are registered where none is chosen.
pub(super) fn all_known(access: &Access, scope: &Scope, chosen: Option<&[Kind]>) -> Result<()> {
    for source in access.sources() {
        let kinds = source.kinds().into_iter();
        let concerned = |kind: &Kind| chosen.is_none_or(|chosen| chosen.iter().any(|one| one.is(kind.schema)));
        kinds.filter(concerned).try_for_each(|kind| known(&**source, kind.schema, scope))?;
    }
    Ok(())
}
