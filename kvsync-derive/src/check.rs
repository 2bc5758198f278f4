//! Third stage: whether the struct is a model, and all that generated code needs to know of it.

use quote::{ToTokens, quote};
use syn::{Ident, LitStr, Path, Type, Visibility};

use crate::ast::{Field, Input};
use crate::ctxt::Ctxt;
use crate::fields::{fingerprint, read_name, stored_name};
use crate::keys::{self, Key};
use crate::suggest::{list, nearest};
use crate::types::is_option;

/// A checked model. Where mistakes were found, what they spoil is left out.
pub(crate) struct Model<'a> {
    pub(crate) ident: &'a Ident,
    pub(crate) vis: &'a Visibility,
    pub(crate) table: String,
    /// The module of its table, where it names one.
    pub(crate) module: Option<&'a Path>,
    pub(crate) primary_key: Vec<&'a Field<'a>>,
    pub(crate) keys: Vec<Key<'a>>,
    /// The index of the key that is made of the primary key alone.
    pub(crate) primary: Option<usize>,
    /// The hash and the name of each.
    pub(crate) fields: Vec<(u32, String)>,
    pub(crate) generation: u32,
    /// Seconds, and the share that chance takes off.
    pub(crate) ttl: Option<(u64, f64)>,
    pub(crate) live_if: Option<String>,
    pub(crate) codec: Option<&'a Type>,
    /// The path of kvsync.
    pub(crate) krate: Path,
}

/// Checks everything and tells every mistake.
pub(crate) fn check<'a>(cx: &Ctxt, input: &'a Input<'a>) -> Model<'a> {
    serde(cx, input);
    let primary_key = primary_key(cx, input);
    let keys = keys::check(cx, input, &primary_key);
    let sync = &input.sync;
    let ttl = sync.ttl.as_ref().and_then(|ttl| lifetime(cx, ttl));
    let jitter = sync.jitter.as_ref().and_then(|jitter| share(cx, jitter));
    if let (Some(jitter), None) = (&sync.jitter, &sync.ttl) {
        cx.error(jitter, "`jitter` shortens a time to live and there is none; add `ttl = \"365d\"`");
    }
    if let Some(live_if) = sync.live_if.as_ref().filter(|condition| condition.value().trim().is_empty()) {
        cx.error(live_if, "`live_if` is an SQL condition on the row; write one such as `deleted_at IS NULL`");
    }
    Model {
        ident: input.ident,
        vis: input.vis,
        table: input.table(),
        module: input.diesel.module.as_ref(),
        primary: keys.iter().position(|key| key.is_primary(&primary_key)),
        primary_key,
        keys,
        fields: fingerprint(&input.fields, &input.serde),
        generation: generation(cx, input),
        ttl: ttl.map(|seconds| (seconds, jitter.unwrap_or_default())),
        live_if: sync.live_if.as_ref().map(LitStr::value),
        codec: sync.codec.as_ref(),
        krate: krate(sync.krate.as_ref()),
    }
}

/// The path of kvsync in generated code.
pub(crate) fn krate(given: Option<&Path>) -> Path {
    given.cloned().unwrap_or_else(|| syn::parse_quote!(::kvsync))
}

/// The fields of the primary key: as `sync` says, else as Diesel says, else the column `id`.
fn primary_key<'a>(cx: &Ctxt, input: &'a Input<'a>) -> Vec<&'a Field<'a>> {
    let before = cx.count();
    let mut found: Vec<&Field<'_>> = Vec::new();
    let mut add = |at: &Ident, field: Option<&'a Field<'a>>, what: &str, names: Vec<&str>| match field {
        Some(field) if found.iter().any(|other| other.name == field.name) => {
            cx.error(at, format!("`{at}` stands in the primary key twice; once is enough"));
        }
        Some(field) => {
            if let Some(why) = field.no_column() {
                cx.error(at, why);
            }
            found.push(field);
        }
        None => {
            let name = at.to_string();
            let near = nearest(name.trim_start_matches("r#"), names.iter().copied());
            let help = near.map_or_else(|| format!("it has {}", list(names)), |near| format!("did you mean `{near}`?"));
            cx.error(at, format!("`{}` has no {what} `{name}` for its primary key; {help}", input.ident));
        }
    };
    if let Some((_, names)) = &input.sync.primary_key {
        for name in names {
            add(name, input.field(name.to_string().trim_start_matches("r#")), "field", input.names().collect());
        }
    } else if let Some(columns) = &input.diesel.primary_key {
        for column in columns {
            add(column, input.column(column.to_string().trim_start_matches("r#")), "column", input.columns().collect());
        }
    } else if let Some(id) = input.column("id") {
        add(input.ident, Some(id), "column", Vec::new());
    }
    if found.is_empty() && cx.count() == before {
        let first = input.fields.first().map_or("id", |field| field.name.as_str());
        cx.error(
            input.ident,
            format!(
                "`{}` has no field `id` and names no primary key; add `#[sync(primary_key({first}))]`, or Diesel's \
                 `#[diesel(primary_key({first}))]`, with the columns of the table's primary key",
                input.ident
            ),
        );
    }
    for field in &found {
        if is_option(field.ty) {
            cx.error(
                field.ty,
                format!("`{}` is in the primary key, which is never NULL; write its type without `Option`", field.name),
            );
        }
    }
    found
}

/// What serde must not do to a synced model: what is written has to be read back whole.
fn serde(cx: &Ctxt, input: &Input<'_>) {
    if let Some(at) = input.serde.deny_unknown_fields {
        cx.error_at(
            at,
            "with `deny_unknown_fields` this binary could not read the rows that a newer one writes with one field \
             more; remove it, kvsync itself refuses bytes that lack a field",
        );
    }
    for field in &input.fields {
        for (skip, value) in &field.serde.skips {
            let none_is_none = skip == "skip_serializing_if"
                && value.as_deref().is_some_and(|path| path.rsplit("::").next() == Some("is_none"))
                && is_option(field.ty)
                && !(field.serde.default_from || input.serde.default)
                && !field.serde.form.contains("with");
            if none_is_none {
                continue;
            }
            let help = if skip == "skip_serializing_if" {
                "only `\"Option::is_none\"` on an `Option` without a default of its own is sure to read back as it was"
            } else {
                "derive `Syncable` for a narrower struct of the same table, without this field"
            };
            cx.error(
                skip,
                format!("a stored row must hold every field of its model, and `{skip}` drops `{}`; {help}", field.name),
            );
        }
        let (written, read) = (stored_name(field, &input.serde), read_name(field, &input.serde));
        if written != read && !field.serde.aliases.contains(&written) {
            let at = field.serde.rename.at.or(input.serde.rename_all.at).unwrap_or_else(|| field.ident.span());
            cx.error_at(
                at,
                format!(
                    "`{}` is written as `{written}` and read as `{read}`, so a stored row could not be read back; \
                     rename it for both, or add `alias = \"{written}\"`",
                    field.name
                ),
            );
        }
    }
}

fn lifetime(cx: &Ctxt, text: &LitStr) -> Option<u64> {
    const LONGEST: u64 = 36_500 * 86_400;
    let value = text.value();
    let digits = value.trim_end_matches(|unit: char| !unit.is_ascii_digit());
    let seconds = match value.strip_prefix(digits) {
        Some("s") => Some(1),
        Some("m") => Some(60),
        Some("h") => Some(3_600),
        Some("d") => Some(86_400),
        _ => None,
    };
    let Some((count, unit)) = digits.parse::<u64>().ok().zip(seconds) else {
        let what = "a time to live is a whole number with `s`, `m`, `h` or `d`";
        cx.error(text, format!("{what}, such as `90s`, `15m`, `12h` or `365d`, and not `{value}`"));
        return None;
    };
    let seconds = count.checked_mul(unit).filter(|seconds| *seconds <= LONGEST);
    if count == 0 {
        cx.error(text, "an entry that lives for no time is never read; leave `ttl` out to keep it for ever");
    } else if seconds.is_none() {
        cx.error(text, format!("`{value}` is longer than 100 years; leave `ttl` out to keep entries for ever"));
    }
    seconds
}

fn share(cx: &Ctxt, text: &LitStr) -> Option<f64> {
    let value = text.value();
    let percent = value.strip_suffix('%').and_then(|number| number.trim_end().parse::<f64>().ok());
    let share = percent.filter(|percent| *percent > 0.0 && *percent < 100.0).map(|percent| percent / 100.0);
    if share.is_none() {
        let what = "`jitter` is the share of the time to live that chance takes off, above 0% and below 100%";
        cx.error(text, format!("{what}; write one such as `10%`, and not `{value}`"));
    }
    share
}

fn generation(cx: &Ctxt, input: &Input<'_>) -> u32 {
    let Some(number) = &input.sync.generation else { return 0 };
    number.base10_parse().unwrap_or_else(|_| {
        cx.error(number, format!("a generation is a whole number from 0 to {}", u32::MAX));
        0
    })
}

impl Model<'_> {
    /// The codec's type.
    pub(crate) fn codec(&self) -> proc_macro2::TokenStream {
        let krate = &self.krate;
        self.codec.map_or_else(|| quote!(#krate::codec::MessagePack), ToTokens::to_token_stream)
    }
}
