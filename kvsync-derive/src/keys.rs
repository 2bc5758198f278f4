//! Third stage, the keys: names, formats, and whether two of them can be the same.

use syn::LitStr;

use crate::ast::{Field, Input};
use crate::attr::KeyAttr;
use crate::automaton::Piece;
use crate::ctxt::Ctxt;
use crate::format::{Format, Placeholder};
use crate::overlap::collision;
use crate::suggest::{list, nearest};
use crate::types::{PartType, Text};

/// A checked key.
pub(crate) struct Key<'a> {
    pub(crate) name: String,
    /// The literal that names it.
    pub(crate) at: &'a LitStr,
    pub(crate) fmt: &'a LitStr,
    pub(crate) format: String,
    pub(crate) literals: Vec<String>,
    /// The fields in its placeholders; `None` for one that is a mistake.
    pub(crate) parts: Vec<Option<&'a Field<'a>>>,
    /// Whether all its parts are primary-key columns.
    pub(crate) of_primary: bool,
    /// What else its attribute says.
    pub(crate) attr: &'a KeyAttr,
    /// Whether a mistake was found in it: it then gets methods in name only.
    pub(crate) broken: bool,
}

impl Key<'_> {
    /// Whether its parts are the whole primary key and nothing else.
    pub(crate) fn is_primary(&self, primary_key: &[&Field<'_>]) -> bool {
        !self.broken
            && self.of_primary
            && primary_key.iter().all(|field| self.fields().any(|part| part.name == field.name))
    }

    /// The fields of its parts.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &Field<'_>> {
        self.parts.iter().flatten().copied()
    }

    /// Its format, to be compared with another.
    fn pieces(&self) -> Vec<Piece<'_>> {
        let mut pieces = Vec::new();
        for (index, literal) in self.literals.iter().enumerate() {
            if let Some(field) = index.checked_sub(1).and_then(|index| self.parts.get(index).copied().flatten()) {
                pieces.push(Piece::Part(PartType::of(field.ty).text, literal.chars().next()));
            }
            pieces.push(Piece::Literal(literal));
        }
        pieces
    }
}

/// The model's keys. Those that cannot even have methods are left out.
pub(crate) fn check<'a>(cx: &Ctxt, input: &'a Input<'a>, primary_key: &[&'a Field<'a>]) -> Vec<Key<'a>> {
    if input.keys.is_empty() {
        let field = primary_key.first().map_or("id", |field| field.name.as_str());
        let help = format!("`#[sync_key(name = \"{field}\", fmt = \"{}\")]`", input.example(field));
        cx.error(input.ident, format!("`{}` has no key to be found under; add {help}", input.ident));
    }
    let mut keys: Vec<Key<'_>> = Vec::new();
    for attr in &input.keys {
        missing(cx, attr);
        let named = attr.name.as_ref().filter(|name| valid_name(cx, name));
        let format = attr.fmt.as_ref().map(|fmt| read_format(cx, input, attr, fmt));
        let (Some(name), Some((format, parts, broken))) = (named, format) else { continue };
        if keys.iter().any(|other| other.name == name.value()) {
            cx.error(
                name,
                format!(
                    "`{0}` has another key with the name `{1}`; each key has a name of its own",
                    input.ident,
                    name.value()
                ),
            );
            continue;
        }
        let Some(fmt) = &attr.fmt else { continue };
        let of_primary = parts.iter().flatten().all(|part| primary_key.iter().any(|field| field.name == part.name));
        keys.push(Key {
            name: name.value(),
            at: name,
            fmt,
            format: fmt.value(),
            literals: format.literals,
            parts,
            of_primary,
            attr,
            broken: broken || attr.broken,
        });
        if let (Some(pointer), Some(key)) = (&attr.pointer, keys.last())
            && key.is_primary(primary_key)
        {
            let help = "pointers lead here and the row's bytes have to be somewhere; remove `pointer`";
            cx.error(pointer, format!("key `{}` is made of the primary key alone: {help}", key.name));
        }
    }
    collisions(cx, input, &mut keys);
    keys
}

/// Says what an attribute lacks, unless another mistake in it was already told.
fn missing(cx: &Ctxt, attr: &KeyAttr) {
    let what = match (&attr.name, &attr.fmt) {
        (None, None) => "neither `name` nor `fmt`",
        (None, Some(_)) => "no `name`",
        (Some(_), None) => "no `fmt`",
        (Some(_), Some(_)) => return,
    };
    if !attr.broken {
        let help = "write `#[sync_key(name = \"id\", fmt = \"user:id:<id>\")]`";
        cx.error_at(attr.at, format!("this key has {what}; {help}"));
    }
}

/// A name becomes part of `fetch_by_<name>`, so a keyword will do.
fn valid_name(cx: &Ctxt, literal: &LitStr) -> bool {
    let name = literal.value();
    let is_part = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_';
    if name.chars().all(is_part) && name.chars().any(|character| character != '_') {
        return true;
    }
    let near: String = name.trim_start_matches("r#").to_lowercase();
    let near: String = near.chars().map(|character| if is_part(character) { character } else { '_' }).collect();
    let near = Some(near.trim_matches('_')).filter(|near| !near.is_empty()).unwrap_or("id");
    let what = "the name of a key ends the names of its methods and has only `a` to `z`, digits and `_`";
    cx.error(literal, format!("{what}; write `{near}`, for `fetch_by_{near}`"));
    false
}

type Parts<'a> = Vec<Option<&'a Field<'a>>>;

/// Takes a format apart and looks up its fields; also says whether it has a mistake.
fn read_format<'a>(cx: &Ctxt, input: &'a Input<'a>, attr: &KeyAttr, fmt: &LitStr) -> (Format, Parts<'a>, bool) {
    let before = cx.count();
    let text = fmt.value();
    let format = Format::parse(&text);
    for mistake in &format.mistakes {
        cx.error(fmt, format!("in the format `{text}`: {mistake}"));
    }
    let mut parts: Parts<'_> = Vec::new();
    for placeholder in &format.placeholders {
        let column = placeholder.column;
        let part = match find(input, placeholder) {
            Ok(field) if parts.iter().flatten().any(|other| other.name == field.name) => {
                Err(format!("`<{}>` (column {column}) stands here twice, and once says it all", field.name))
            }
            found => found,
        };
        if let Err(mistake) = &part {
            cx.error(fmt, format!("in the format `{text}`: {mistake}"));
        }
        parts.push(part.ok());
    }
    if text.is_empty() {
        cx.error(fmt, "the format is empty; write one such as `user:id:<id>`");
    } else if format.placeholders.is_empty() && format.mistakes.is_empty() {
        let field = attr.name.as_ref().map(LitStr::value).filter(|name| input.field(name).is_some());
        let field = field.as_deref().or(input.names().next()).unwrap_or("id");
        let help = format!("name a field that tells rows apart, as in `{}`", input.example(field));
        cx.error(fmt, format!("the format `{text}` gives every row the same key; {help}"));
    }
    if let (Some(""), Some(Some(field))) = (format.literals.first().map(String::as_str), parts.first())
        && matches!(PartType::of(field.ty).text, Text::Any | Text::Char)
    {
        let name = &field.name;
        cx.error(
            fmt,
            format!(
                "the format `{text}` begins with `<{name}>`, whose text could then reach into any other key; begin \
                 with text of the format's own, as in `{}`",
                input.example(name)
            ),
        );
    }
    (format, parts, cx.count() > before)
}

/// The field that a placeholder names, or what is wrong with it.
fn find<'a>(input: &'a Input<'a>, placeholder: &Placeholder) -> Result<&'a Field<'a>, String> {
    let Placeholder { name, column } = placeholder;
    if let Some(field) = input.field(name) {
        return match field.no_column() {
            Some(why) => Err(format!("`<{name}>` (column {column}): {why}")),
            None => Ok(field),
        };
    }
    if name.trim().is_empty() {
        let example = input.names().next().unwrap_or("id");
        return Err(format!("`<{name}>` (column {column}) names no field; write one, as in `<{example}>`"));
    }
    let bare = name.trim().trim_start_matches("r#");
    let head = bare.split('.').next().unwrap_or_default();
    let help = if let Some(field) = input.field(bare) {
        format!("write `<{}>`", field.name)
    } else if let Some(field) = input.field(head).filter(|_| head != bare) {
        let why = field.no_column().unwrap_or_else(|| "a placeholder is a field of the model, not a path".to_owned());
        return Err(format!("`<{name}>` (column {column}): {why}"));
    } else if let Some(field) = input.column(bare) {
        format!("the field of this column is `<{}>`", field.name)
    } else if let Some(near) = nearest(bare, input.names()) {
        format!("did you mean `<{near}>`?")
    } else {
        format!("it has {}", list(input.names()))
    };
    Err(format!("`{}` has no field `{name}` (column {column}); {help}", input.ident))
}

/// Tells of each key that can be the same as one before it.
fn collisions(cx: &Ctxt, input: &Input<'_>, keys: &mut [Key<'_>]) {
    let mut broken = vec![false; keys.len()];
    for (index, (key, broken)) in keys.iter().zip(&mut broken).enumerate() {
        for other in keys.iter().take(index).filter(|other| !other.broken && !key.broken) {
            if other.format == key.format {
                let message = "has this same format; one of the two is enough";
                cx.error(key.fmt, format!("key `{}` {message}", other.name));
                *broken = true;
            } else if let Some(found) = collision(&other.pieces(), &key.pieces()) {
                let when = |key: &Key<'_>, values: &[String]| {
                    let pairs = key.fields().zip(values).map(|(field, value)| format!("{} = {value:?}", field.name));
                    pairs.collect::<Vec<_>>().join(", ")
                };
                cx.error(
                    key.fmt,
                    format!(
                        "keys `{0}` and `{1}` can be the same, such as `{2}`: `{3}` gives it for {4}, `{5}` for {6}; \
                         begin each with text of its own, such as `{7}:{0}:` and `{7}:{1}:`",
                        other.name,
                        key.name,
                        found.key,
                        other.format,
                        when(other, &found.left),
                        key.format,
                        when(key, &found.right),
                        input.prefix(),
                    ),
                );
                *broken = true;
            }
        }
    }
    for (key, broken) in keys.iter_mut().zip(broken) {
        key.broken |= broken;
    }
}
