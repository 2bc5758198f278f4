//! What the commands do.

use serde_json::{Value, json};

use super::Comparing;
use super::bar::Bar;
use super::tell::Told;
use crate::capture::Severity;
use crate::error::{Error, ErrorKind, Result};
use crate::kvsync::KvSync;
use crate::upkeep::{Difference, Verified, VerifyProgress};

pub(super) fn verify(kv: &KvSync, comparing: &Comparing, shown: bool) -> Result<Told> {
    let names: Vec<&str> = comparing.models.iter().map(String::as_str).collect();
    let mut verify = if names.is_empty() { kv.verify_all() } else { kv.verify_models(&names)? };
    if let Some(rate) = comparing.rate {
        verify = verify.rate(rate);
    }
    let found = verify
        .page(comparing.page)
        .in_flight(comparing.in_flight)
        .deadline(comparing.deadline)
        .samples(comparing.samples)
        .on_progress(on_bar(shown))
        .run()?;
    let well = found.is_clean();
    Ok(Told::new(compared(&found, well), lines(&found), well))
}

pub(super) fn repair(kv: &KvSync, comparing: &Comparing, remove_foreign: bool, shown: bool) -> Result<Told> {
    let names: Vec<&str> = comparing.models.iter().map(String::as_str).collect();
    let mut repair = if names.is_empty() { kv.repair_all() } else { kv.repair_models(&names)? };
    if let Some(rate) = comparing.rate {
        repair = repair.rate(rate);
    }
    let repaired = repair
        .remove_foreign(remove_foreign)
        .page(comparing.page)
        .in_flight(comparing.in_flight)
        .deadline(comparing.deadline)
        .samples(comparing.samples)
        .on_progress(on_bar(shown))
        .run()?;
    let well = repaired.is_clean();
    let mut json = compared(&repaired.found, well);
    let reasons: Vec<Value> =
        repaired.reasons.iter().map(|(key, reason)| json!({ "key": key.as_str(), "reason": reason })).collect();
    if let Value::Object(fields) = &mut json {
        fields.insert("mended".into(), repaired.mended.into());
        fields.insert("left".into(), repaired.left.into());
        fields.insert("reasons".into(), reasons.into());
    }
    let mut lines = lines(&repaired.found);
    lines.extend(repaired.reasons.iter().map(|(key, reason)| format!("left: `{key}`: {reason}")));
    lines.push(format!("{} mended, {} left", repaired.mended, repaired.left));
    Ok(Told::new(json, lines, well))
}

fn on_bar(shown: bool) -> impl FnMut(&VerifyProgress) + Send + 'static {
    let mut bar = Bar::new(shown);
    move |progress| {
        let what = match progress.model {
            Some(model) => format!("{} {model}", progress.side),
            None => progress.side.to_string(),
        };
        bar.at(&what, progress.done, progress.of, format!("({} differences)", progress.found));
    }
}

fn compared(found: &Verified, clean: bool) -> Value {
    let counts: serde_json::Map<String, Value> =
        found.counts.iter().map(|(kind, count)| (kind.as_str().to_owned(), (*count).into())).collect();
    let differences: Vec<Value> = found.differences.iter().map(difference).collect();
    json!({
        "clean": clean,
        "rows": found.rows,
        "keys": found.keys,
        "entries": found.entries,
        "counts": counts,
        "differences": differences,
        "moving": found.moving,
        "expired": found.expired,
        "unreadable": found.unreadable,
        "unjudged": found.unjudged,
        "seconds": found.took.as_secs_f64(),
    })
}

fn difference(difference: &Difference) -> Value {
    json!({
        "kind": difference.kind.as_str(),
        "store": &*difference.store,
        "database": &*difference.database,
        "table": difference.table,
        "model": difference.model,
        "key_name": difference.key_name,
        "key": difference.key.as_str(),
        "primary_key": difference.primary_key,
        "stored": difference.stored.map(|version| version.to_string()),
        "read_at": difference.read_at.to_string(),
        "detail": difference.detail,
    })
}

fn lines(found: &Verified) -> Vec<String> {
    let mut lines: Vec<String> = found.differences.iter().map(ToString::to_string).collect();
    lines.push(found.to_string());
    lines
}

pub(super) fn audit(kv: &KvSync, database: Option<&str>) -> Result<Told> {
    let (mut findings, mut lines, mut well) = (Vec::new(), Vec::new(), true);
    for database in kv.databases_named(database)? {
        for finding in database.audit()? {
            let severity = match finding.severity {
                Severity::Note => "note",
                Severity::Warning => "warning",
                Severity::Error => "error",
            };
            well &= finding.severity == Severity::Note;
            lines.push(format!("{severity}: {finding}"));
            findings.push(json!({
                "severity": severity,
                "database": &*finding.database,
                "table": finding.table,
                "message": finding.message,
                "advice": finding.advice,
            }));
        }
    }
    if lines.is_empty() {
        lines.push("nothing was found".to_owned());
    }
    Ok(Told::new(json!({ "findings": findings }), lines, well))
}

pub(super) fn triggers(kv: &KvSync, database: Option<&str>, down: bool) -> Result<Told> {
    let mut sql = String::new();
    for database in kv.databases_named(database)? {
        let triggers = database.triggers_sql();
        sql.push_str(if down { &triggers.down } else { &triggers.up });
    }
    if sql.is_empty() {
        let message = "no table has triggers; register their models with `.triggers::<..>()`";
        return Err(Error::new(ErrorKind::Config, message));
    }
    Ok(Told::new(json!({ "sql": sql }), vec![sql.trim_end().to_owned()], true))
}

pub(super) fn raise_epoch(kv: &KvSync, yes: bool) -> Result<Told> {
    if !yes {
        let message =
            "everything that is stored would read as unknown, until it is written again; if it is meant, say `--yes`";
        return Err(Error::new(ErrorKind::Config, message));
    }
    let epoch = kv.raise_epoch()?;
    let line = format!("the epoch is {epoch}; fill the stores again with `backfill` or `repair`");
    Ok(Told::new(json!({ "epoch": epoch }), vec![line], true))
}
