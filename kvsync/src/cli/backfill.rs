//! What `backfill` does.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::{Value, json};

use super::Filling;
use super::bar::Bar;
use super::interrupt::Interrupt;
use super::tell::Told;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Scope;
use crate::kvsync::KvSync;
use crate::model::Position;
use crate::upkeep::{Checkpoint, Summary};

/// How long the database may take to tell its scopes.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn backfill(kv: &KvSync, filling: &Filling, shown: bool) -> Result<Told> {
    let all = kv.backfills(&filling.models, PATIENCE)?;
    if filling.resume.is_some() && all.len() != 1 {
        let message = "a position is one of one table; name the model, and the scope where there are several";
        return Err(Error::new(ErrorKind::Config, message));
    }
    let _listening = Interrupt::listen();
    let rate = filling.rate.unwrap_or(u32::MAX);
    // A page takes a second at most, so that an interrupt is heard.
    let page = filling.page.min(usize::try_from(rate).unwrap_or(usize::MAX));
    let (mut done, mut lines, mut complete) = (Vec::new(), Vec::new(), true);
    let mut rest = all.into_iter();
    while let Some((model, scope, backfill)) = rest.next() {
        let mut bar = Bar::new(shown);
        let mut backfill = backfill.rows_per_page(page).rows_per_second(rate).deadline(filling.deadline).on_progress(
            move |progress| {
                let position =
                    progress.next.as_ref().map_or_else(String::new, |next| format!("(--resume {})", next.position));
                bar.at(progress.model, progress.rows, progress.estimate, position);
                if Interrupt::came() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        );
        if let Some(position) = &filling.resume {
            backfill = backfill.resume(Checkpoint { position: Position::from(position.clone()), rows: 0 });
        }
        let (summary, failure) = match backfill.run() {
            Ok(summary) => (summary, None),
            Err(interrupted) => (*interrupted.summary.clone(), Some(Error::from(interrupted))),
        };
        complete &= failure.is_none() && summary.is_complete();
        let stopped = summary.next.is_some();
        if failure.is_none() {
            lines.push(summary.to_string());
        }
        if failure.is_some() || stopped || Interrupt::came() {
            let next = (failure.is_some() || stopped).then(|| (model, scope, position(&summary)));
            let next = next.into_iter().chain(rest.map(|(model, scope, _)| (model, scope, None)));
            let next: Vec<String> = next.map(|(model, scope, from)| command(&model, &scope, from)).collect();
            complete &= next.is_empty();
            // A position that is none leads nowhere.
            if !next.is_empty() && failure.as_ref().is_none_or(|error| error.kind() != ErrorKind::Config) {
                lines.push(format!("stopped; go on with `{}`", next.join("`, `")));
            }
            done.push(filled(&summary));
            let json = json!({ "complete": complete, "models": done });
            return Ok(Told { failure, ..Told::new(json, lines, complete) });
        }
        done.push(filled(&summary));
    }
    Ok(Told::new(json!({ "complete": complete, "models": done }), lines, complete))
}

fn position(summary: &Summary) -> Option<&str> {
    summary.next.as_ref().map(|next| next.position.as_str())
}

/// The command that goes on, or begins.
fn command(model: &str, scope: &Scope, from: Option<&str>) -> String {
    let mut text = format!("backfill {model}");
    if !scope.is_none() {
        let _ = write!(text, " --scope {}", scope.prefix().trim_start_matches('@').trim_end_matches(':'));
    }
    if let Some(from) = from {
        let _ = write!(text, " --resume {from}");
    }
    text
}

fn filled(summary: &Summary) -> Value {
    json!({
        "database": &*summary.database,
        "model": summary.model,
        "scope": summary.scope.prefix(),
        "rows": summary.rows,
        "written": summary.written,
        "superseded": summary.superseded,
        "masked": summary.masked,
        "failed": summary.failed,
        "nameless": summary.nameless,
        "seconds": summary.elapsed.as_secs_f64(),
        "next": position(summary),
    })
}
