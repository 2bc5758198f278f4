//! First stage: the attributes as they are written.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Ident, Lit, LitInt, LitStr, Meta, Token, Type, parenthesized, token};

use crate::ctxt::Ctxt;
use crate::suggest::{list, nearest};

/// One `#[sync_key(..)]`.
pub(crate) struct KeyAttr {
    /// The word `sync_key`.
    pub(crate) at: Span,
    pub(crate) name: Option<LitStr>,
    pub(crate) fmt: Option<LitStr>,
    pub(crate) immutable: Option<Ident>,
    pub(crate) pointer: Option<Ident>,
    pub(crate) assume_unique: Option<Ident>,
    /// Whether a mistake in it was already told.
    pub(crate) broken: bool,
}

/// All of `#[sync(..)]`.
#[derive(Default)]
pub(crate) struct SyncAttr {
    pub(crate) primary_key: Option<(Ident, Vec<Ident>)>,
    pub(crate) live_if: Option<LitStr>,
    pub(crate) ttl: Option<LitStr>,
    pub(crate) jitter: Option<LitStr>,
    pub(crate) generation: Option<LitInt>,
    pub(crate) codec: Option<Type>,
    pub(crate) krate: Option<syn::Path>,
}

/// Which derive reads the attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Derive {
    Syncable,
    KeyPart,
}

const KEY_KEYS: [&str; 5] = ["name", "fmt", "immutable", "pointer", "assume_unique"];
const SYNC_KEYS: [&str; 7] = ["primary_key", "live_if", "ttl", "jitter", "generation", "codec", "crate"];
const PART_KEYS: [&str; 1] = ["crate"];

impl KeyAttr {
    /// Every `#[sync_key(..)]` among these attributes.
    pub(crate) fn all(cx: &Ctxt, attrs: &[Attribute]) -> Vec<Self> {
        attrs.iter().filter(|attr| attr.path().is_ident("sync_key")).map(|attr| Self::read(cx, attr)).collect()
    }

    fn read(cx: &Ctxt, attr: &Attribute) -> Self {
        let before = cx.count();
        let mut this = Self {
            at: attr.path().get_ident().map_or_else(Span::call_site, Ident::span),
            name: None,
            fmt: None,
            immutable: None,
            pointer: None,
            assume_unique: None,
            broken: false,
        };
        for item in items(cx, attr, "#[sync_key(name = \"id\", fmt = \"user:id:<id>\")]") {
            match item.key.to_string().as_str() {
                "name" => set(cx, &item.key, &mut this.name, item.string(cx, "name = \"id\"")),
                "fmt" => set(cx, &item.key, &mut this.fmt, item.string(cx, "fmt = \"user:id:<id>\"")),
                "immutable" => set(cx, &item.key, &mut this.immutable, Some(item.flag(cx))),
                "pointer" => set(cx, &item.key, &mut this.pointer, Some(item.flag(cx))),
                "assume_unique" => set(cx, &item.key, &mut this.assume_unique, Some(item.flag(cx))),
                _ => unknown(cx, &item.key, "sync_key", &KEY_KEYS, &SYNC_KEYS, "sync"),
            }
        }
        this.broken = cx.count() > before;
        this
    }
}

impl SyncAttr {
    /// What all `#[sync(..)]` among these attributes say together.
    pub(crate) fn read(cx: &Ctxt, attrs: &[Attribute], derive: Derive) -> Self {
        let (example, keys) = match derive {
            Derive::Syncable => ("#[sync(ttl = \"365d\")]", &SYNC_KEYS[..]),
            Derive::KeyPart => ("#[sync(crate = \"path::to::kvsync\")]", &PART_KEYS[..]),
        };
        let mut this = Self::default();
        for item in attrs.iter().filter(|attr| attr.path().is_ident("sync")).flat_map(|attr| items(cx, attr, example)) {
            let key = &item.key;
            match key.to_string().as_str() {
                name if !keys.contains(&name) => unknown(cx, key, "sync", keys, &KEY_KEYS, "sync_key"),
                "primary_key" => {
                    let columns = item.idents(cx, "primary_key(id)").map(|columns| (key.clone(), columns));
                    set(cx, key, &mut this.primary_key, columns);
                }
                "live_if" => set(cx, key, &mut this.live_if, item.string(cx, "live_if = \"deleted_at IS NULL\"")),
                "ttl" => set(cx, key, &mut this.ttl, item.string(cx, "ttl = \"365d\"")),
                "jitter" => set(cx, key, &mut this.jitter, item.string(cx, "jitter = \"10%\"")),
                "generation" => set(cx, key, &mut this.generation, item.integer(cx, "generation = 1")),
                "codec" => set(cx, key, &mut this.codec, item.path(cx, "codec = kvsync::codec::MessagePack")),
                _ => set(cx, key, &mut this.krate, item.quoted_path(cx, "crate = \"path::to::kvsync\"")),
            }
        }
        this
    }
}

/// Refuses our attributes where they mean nothing.
pub(crate) fn misplaced(cx: &Ctxt, attrs: &[Attribute]) {
    for attr in attrs {
        for name in ["sync_key", "sync"] {
            if attr.path().is_ident(name) {
                cx.error(attr.path(), format!("`#[{name}(..)]` belongs on the struct, above its name"));
            }
        }
    }
}

/// `key`, `key = value` or `key(..)`.
struct Item {
    key: Ident,
    value: Option<Value>,
}

enum Value {
    Lit(Lit),
    Type(Box<Type>),
    List(TokenStream),
}

impl Item {
    fn string(&self, cx: &Ctxt, form: &str) -> Option<LitStr> {
        match &self.value {
            Some(Value::Lit(Lit::Str(text))) => Some(text.clone()),
            _ => self.wrong(cx, "a string", form),
        }
    }

    fn integer(&self, cx: &Ctxt, form: &str) -> Option<LitInt> {
        match &self.value {
            Some(Value::Lit(Lit::Int(number))) => Some(number.clone()),
            _ => self.wrong(cx, "a whole number", form),
        }
    }

    fn path(&self, cx: &Ctxt, form: &str) -> Option<Type> {
        match &self.value {
            Some(Value::Type(ty)) if matches!(**ty, Type::Path(_)) => Some((**ty).clone()),
            _ => self.wrong(cx, "the path of a type, without quotes", form),
        }
    }

    fn quoted_path(&self, cx: &Ctxt, form: &str) -> Option<syn::Path> {
        let text = self.string(cx, form)?;
        text.parse_with(syn::Path::parse_mod_style).ok().or_else(|| self.wrong(cx, "a path in quotes", form))
    }

    fn flag(&self, cx: &Ctxt) -> Ident {
        if let Some(value) = &self.value {
            cx.error(value, format!("`{0}` takes no value; write `{0}` alone", self.key));
        }
        self.key.clone()
    }

    fn idents(&self, cx: &Ctxt, form: &str) -> Option<Vec<Ident>> {
        let Some(Value::List(tokens)) = &self.value else { return self.wrong(cx, "names of fields", form) };
        let names = syn::parse::Parser::parse2(
            |input: ParseStream<'_>| Punctuated::<Ident, Token![,]>::parse_terminated_with(input, Ident::parse_any),
            tokens.clone(),
        );
        match names {
            Ok(names) if !names.is_empty() => Some(names.into_iter().collect()),
            _ => self.wrong(cx, "names of fields", form),
        }
    }

    /// Says what the key takes; points at the value if there is one.
    fn wrong<T>(&self, cx: &Ctxt, what: &str, form: &str) -> Option<T> {
        let message = format!("`{}` takes {what}; write `{form}`", self.key);
        match &self.value {
            Some(value) if !value.to_token_stream().is_empty() => cx.error(value, message),
            _ => cx.error(&self.key, message),
        }
        None
    }
}

impl ToTokens for Value {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        match self {
            Self::Lit(lit) => lit.to_tokens(tokens),
            Self::Type(ty) => ty.to_tokens(tokens),
            Self::List(list) => list.to_tokens(tokens),
        }
    }
}

impl Parse for Item {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let Ok(key) = Ident::parse_any(input) else { return Err(input.error("expected the name of an option")) };
        let value = if input.peek(token::Paren) {
            let content;
            parenthesized!(content in input);
            Some(Value::List(content.parse()?))
        } else if input.peek(Token![=]) {
            input.parse::<Token![=]>()?;
            if input.peek(Lit) {
                Some(Value::Lit(input.parse()?))
            } else {
                let at = input.span();
                let missing = |_| syn::Error::new(at, format!("expected a value after `{key} =`"));
                Some(Value::Type(input.parse().map(Box::new).map_err(missing)?))
            }
        } else {
            None
        };
        if !input.is_empty() && !input.peek(Token![,]) {
            return Err(input.error("expected `,` before this"));
        }
        Ok(Self { key, value })
    }
}

/// What stands in the parentheses of an attribute; nothing, and an error told, when it cannot be read.
fn items(cx: &Ctxt, attr: &Attribute, example: &str) -> Vec<Item> {
    let Meta::List(list) = &attr.meta else {
        cx.error(&attr.meta, format!("this attribute says nothing; write it as `{example}`"));
        return Vec::new();
    };
    match list.parse_args_with(Punctuated::<Item, Token![,]>::parse_terminated) {
        Ok(items) => items.into_iter().collect(),
        Err(error) => {
            cx.push(error);
            Vec::new()
        }
    }
}

fn set<T>(cx: &Ctxt, key: &Ident, slot: &mut Option<T>, value: Option<T>) {
    if slot.is_some() {
        cx.error(key, format!("`{key}` is given twice; once is enough"));
    } else {
        *slot = value;
    }
}

fn unknown(cx: &Ctxt, key: &Ident, attr: &str, valid: &[&str], elsewhere: &[&str], other: &str) {
    let name = key.to_string();
    let help = if valid.len() > 1 && elsewhere.contains(&name.as_str()) {
        format!("it belongs in `#[{other}(..)]`")
    } else if let Some(near) = nearest(&name, valid.iter().copied()) {
        format!("did you mean `{near}`? `#[{attr}(..)]` takes {}", list(valid.iter().copied()))
    } else {
        format!("`#[{attr}(..)]` takes {}", list(valid.iter().copied()))
    };
    cx.error(key, format!("unknown option `{name}`; {help}"));
}
