//! What is compared, and how its rows are named.

use std::sync::Arc;
use std::time::Duration;

use super::flight::Unit;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Scope;
use crate::model::{Kind, PrimaryKey};
use crate::report::DirtyTable;
use crate::upkeep::scope::all_known;
use crate::worker::Access;

/// The models to compare, in each scope that their databases know; and every model there is.
pub(super) fn units(
    access: &Access,
    scope: &Scope,
    chosen: Option<&[Kind]>,
    deadline: Duration,
) -> Result<(Vec<Unit>, Vec<Kind>)> {
    all_known(access, scope, chosen)?;
    let (mut units, mut registered) = (Vec::new(), Vec::new());
    for source in access.sources() {
        for kind in source.kinds() {
            registered.push(kind);
            if chosen.is_some_and(|chosen| !chosen.iter().any(|one| one.is(kind.schema))) {
                continue;
            }
            let own = if scope.is_none() { source.scopes(kind.schema, deadline)? } else { Vec::new() };
            for scope in if own.is_empty() { vec![scope.clone()] } else { own } {
                units.push(Unit { database: source.name().into(), source: Arc::clone(source), kind, scope });
            }
        }
    }
    if units.is_empty() {
        let names: Vec<String> =
            chosen.unwrap_or_default().iter().map(|kind| format!("`{}`", kind.schema.model)).collect();
        let message = if names.is_empty() {
            "there is nothing to compare: no model was registered; call `.model::<..>()` on a database".to_owned()
        } else {
            format!("{} is registered in no database; call `.model::<..>()` on one", names.join(", "))
        };
        return Err(Error::new(ErrorKind::Config, message));
    }
    Ok((units, registered))
}

/// The dirty tables of which every model is compared.
pub(super) fn covered(dirty: &[DirtyTable], units: &[Unit], access: &Access) -> Vec<DirtyTable> {
    let whole = |table: &&DirtyTable| {
        let Some(source) = access.source(&table.database) else { return false };
        let mut concerned = source
            .kinds()
            .into_iter()
            .filter(|kind| table.table.as_deref().is_none_or(|name| name == kind.schema.table));
        concerned.all(|kind| units.iter().any(|unit| *unit.database == *table.database && unit.kind.is(kind.schema)))
    };
    dirty.iter().filter(whole).cloned().collect()
}

/// A primary key as people write it: what the home key is made of, without the text around it.
pub(super) fn plain(kind: &Kind, row: &PrimaryKey) -> String {
    let (schema, home) = (kind.schema, row.home().as_str());
    let hidden = format!("~{}:{}:{}:", schema.table, schema.model, schema.generation);
    if let Some(plain) = home.strip_prefix(&hidden) {
        return plain.to_owned();
    }
    let literals = schema.home().and_then(|home| schema.keys.get(home)).map_or(&[][..], |key| key.literals);
    let after = literals.first().and_then(|first| home.strip_prefix(first)).unwrap_or(home);
    literals.last().and_then(|last| after.strip_suffix(last)).unwrap_or(after).to_owned()
}
