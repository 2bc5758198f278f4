//! First stage: the attributes of Diesel and serde that matter here.
//!
//! They are read leniently, token by token: what is wrong in them, their own derives say.

use proc_macro2::{Delimiter, Ident, Span, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::{Attribute, LitStr, Meta, Path};

/// `#[diesel(..)]` of a struct.
#[derive(Default)]
pub(crate) struct DieselStruct {
    /// The last segment of `table_name`.
    pub(crate) table: Option<String>,
    /// All of it: the module that `table!` made.
    pub(crate) module: Option<Path>,
    /// The columns in `primary_key(..)`.
    pub(crate) primary_key: Option<Vec<Ident>>,
}

/// `#[diesel(..)]` of a field.
#[derive(Debug, Default)]
pub(crate) struct DieselField {
    pub(crate) column: Option<String>,
    pub(crate) embed: bool,
    pub(crate) computed: bool,
}

/// `#[serde(..)]` of a struct.
#[derive(Debug, Default)]
pub(crate) struct SerdeStruct {
    /// The rule for the names that are written, the one for those that are read, and where they stand.
    pub(crate) rename_all: Names,
    /// Whether fields that are missing are taken from the struct's own default.
    pub(crate) default: bool,
    pub(crate) deny_unknown_fields: Option<Span>,
    /// Options that make the stored form another one than the fields are.
    pub(crate) form: String,
}

/// `#[serde(..)]` of a field.
#[derive(Debug, Default)]
pub(crate) struct SerdeField {
    pub(crate) rename: Names,
    pub(crate) aliases: Vec<String>,
    /// Whether a missing value is taken from a function.
    pub(crate) default_from: bool,
    /// `skip`, `skip_serializing`, ..: each with where it stands and its value.
    pub(crate) skips: Vec<(Ident, Option<String>)>,
    /// Options that change how the value is stored.
    pub(crate) form: String,
}

/// A name, or a rule for names, for each direction.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) written: Option<String>,
    pub(crate) read: Option<String>,
    pub(crate) at: Option<Span>,
}

impl DieselStruct {
    pub(crate) fn read(attrs: &[Attribute]) -> Self {
        let mut this = Self::default();
        for option in options(attrs, "diesel") {
            match option.name().as_str() {
                "table_name" => {
                    this.table = option.last_word();
                    this.module = option.path();
                }
                "primary_key" => this.primary_key = Some(option.idents()),
                _ => {}
            }
        }
        this
    }
}

impl DieselField {
    pub(crate) fn read(attrs: &[Attribute]) -> Self {
        let mut this = Self::default();
        for option in options(attrs, "diesel") {
            match option.name().as_str() {
                "column_name" => this.column = option.last_word(),
                "embed" => this.embed = true,
                "select_expression" => this.computed = true,
                _ => {}
            }
        }
        this
    }
}

impl SerdeStruct {
    pub(crate) fn read(attrs: &[Attribute]) -> Self {
        let mut this = Self::default();
        for option in options(attrs, "serde") {
            match option.name().as_str() {
                "rename_all" => this.rename_all = option.names(),
                "default" => this.default = true,
                "deny_unknown_fields" => this.deny_unknown_fields = Some(option.key.span()),
                "from" | "try_from" | "into" | "transparent" => this.form += &option.text(),
                _ => {}
            }
        }
        this
    }
}

impl SerdeField {
    pub(crate) fn read(attrs: &[Attribute]) -> Self {
        let mut this = Self::default();
        for option in options(attrs, "serde") {
            match option.name().as_str() {
                "rename" => this.rename = option.names(),
                "alias" => this.aliases.extend(option.value()),
                "default" => this.default_from = !option.rest.is_empty(),
                "skip" | "skip_serializing" | "skip_deserializing" | "skip_serializing_if" => {
                    this.skips.push((option.key.clone(), option.value()));
                }
                "with" | "serialize_with" | "deserialize_with" | "flatten" => this.form += &option.text(),
                _ => {}
            }
        }
        this
    }
}

/// `key`, `key = ..` or `key(..)`.
struct Foreign {
    key: Ident,
    rest: Vec<TokenTree>,
}

impl Foreign {
    fn name(&self) -> String {
        self.key.to_string()
    }

    /// The string after `=`.
    fn value(&self) -> Option<String> {
        self.rest.get(1).and_then(string)
    }

    /// The string after `=`, or the one after this word in parentheses.
    fn value_or(&self, word: &str) -> Option<String> {
        match self.rest.first() {
            Some(TokenTree::Group(group)) => {
                split(group.stream()).into_iter().find(|option| option.key == word).and_then(|option| option.value())
            }
            _ => self.value(),
        }
    }

    fn names(&self) -> Names {
        Names { written: self.value_or("serialize"), read: self.value_or("deserialize"), at: Some(self.key.span()) }
    }

    /// The last name of a path, written as tokens or in quotes.
    fn last_word(&self) -> Option<String> {
        self.rest.iter().rev().find_map(|token| match token {
            TokenTree::Ident(ident) => Some(ident.unraw().to_string()),
            token => string(token).and_then(|path| path.rsplit("::").next().map(|last| last.trim().to_owned())),
        })
    }

    /// The path after `=`, written as tokens or in quotes.
    fn path(&self) -> Option<Path> {
        match self.value() {
            Some(text) => syn::parse_str(&text).ok(),
            None => syn::parse2(self.rest.iter().skip(1).cloned().collect()).ok(),
        }
    }

    fn idents(&self) -> Vec<Ident> {
        let Some(TokenTree::Group(group)) = self.rest.first() else { return Vec::new() };
        let idents = group.stream().into_iter().filter_map(|token| match token {
            TokenTree::Ident(ident) => Some(ident),
            _ => None,
        });
        idents.collect()
    }

    fn text(&self) -> String {
        let rest: Vec<String> = self.rest.iter().map(ToString::to_string).collect();
        format!(" {}{}", self.key, rest.concat())
    }
}

fn string(token: &TokenTree) -> Option<String> {
    match token {
        TokenTree::Group(group) if group.delimiter() == Delimiter::None => {
            group.stream().into_iter().next().as_ref().and_then(string)
        }
        TokenTree::Literal(_) => syn::parse2::<LitStr>(token.clone().into()).ok().map(|text| text.value()),
        _ => None,
    }
}

fn options(attrs: &[Attribute], name: &str) -> Vec<Foreign> {
    let lists = attrs.iter().filter_map(|attr| match &attr.meta {
        Meta::List(list) if list.path.is_ident(name) => Some(list.tokens.clone()),
        _ => None,
    });
    lists.flat_map(split).collect()
}

/// Splits at commas. What follows one inside `<..>` is taken for an option of its own; none that is
/// looked for can stand there.
fn split(tokens: TokenStream) -> Vec<Foreign> {
    let mut options: Vec<Foreign> = Vec::new();
    let mut fresh = true;
    for token in tokens {
        match (token, options.last_mut()) {
            (TokenTree::Punct(punct), _) if punct.as_char() == ',' => fresh = true,
            (TokenTree::Ident(key), _) if fresh => {
                options.push(Foreign { key, rest: Vec::new() });
                fresh = false;
            }
            (token, Some(option)) if !fresh => option.rest.push(token),
            _ => {}
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attrs(text: &str) -> Vec<Attribute> {
        syn::parse_str::<syn::DeriveInput>(&format!("{text} struct S;")).unwrap().attrs
    }

    #[test]
    fn diesel_is_read_through_what_is_not_known() {
        let text = "#[diesel(check_for_backend(diesel::pg::Pg), table_name = crate::schema::r#type)]
                    #[diesel(primary_key(a, b), base_query = x::<A, B>().y(1))]";
        let read = DieselStruct::read(&attrs(text));
        assert_eq!(read.table.as_deref(), Some("type"));
        assert_eq!(read.primary_key.map(|names| names.len()), Some(2));
        let field = DieselField::read(&attrs("#[diesel(deserialize_as = A<B, C>, column_name = \"uid\", embed)]"));
        assert_eq!((field.column.as_deref(), field.embed, field.computed), (Some("uid"), true, false));
    }

    #[test]
    fn serde_names_come_in_both_forms() {
        let read = SerdeStruct::read(&attrs("#[serde(rename_all(serialize = \"camelCase\"), deny_unknown_fields)]"));
        assert_eq!(read.rename_all.written.as_deref(), Some("camelCase"));
        assert_eq!(read.rename_all.read, None);
        assert!(read.deny_unknown_fields.is_some());
        let field = SerdeField::read(&attrs("#[serde(rename(serialize = \"a\", deserialize = \"b\"), default)]"));
        assert_eq!((field.rename.written.as_deref(), field.rename.read.as_deref()), (Some("a"), Some("b")));
        let field = SerdeField::read(&attrs("#[serde(rename = \"a\", skip_serializing_if = \"Option::is_none\")]"));
        assert_eq!(field.skips[0].1.as_deref(), Some("Option::is_none"));
        assert_eq!((field.rename.written.as_deref(), field.rename.read.as_deref()), (Some("a"), Some("a")));
    }
}
