//! What can be told of a type by its tokens.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Expr, ExprLit, GenericArgument, Lit, PathArguments, PathSegment, Type, TypeArray, TypeGroup, TypeParen};

/// A type as part of a key.
#[derive(Clone, Copy)]
pub(crate) struct PartType<'a> {
    /// The type without `Option`, `Box`, `Arc` and `Cow`.
    pub(crate) inner: &'a Type,
    /// How a generated method takes it.
    pub(crate) passing: Passing,
    /// What text it can write.
    pub(crate) text: Text,
}

/// How a generated method takes a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passing {
    /// `i32`
    Value,
    /// `&str`
    Str,
    /// `&[u8]`
    Bytes,
    /// `impl Borrow<T>`
    Borrow,
}

/// The text that a part can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Text {
    /// Anything.
    Any,
    /// One character.
    Char,
    /// A decimal number.
    Integer {
        /// Whether it may begin with `-`.
        signed: bool,
    },
    /// `true` or `false`.
    Bool,
    /// Hyphenated, lower case.
    Uuid,
    /// Two lower-case hexadecimal digits a byte; as many bytes as are known.
    Hex(Option<usize>),
}

impl<'a> PartType<'a> {
    /// What the tokens of a type say. A name counts for what it usually names: no derive sees more.
    pub(crate) fn of(ty: &'a Type) -> Self {
        let ty = peel(ty);
        match last_segment(ty).map(|segment| (segment.ident.unraw().to_string(), argument(segment))) {
            Some((name, Some(inner))) if ["Option", "Box", "Arc", "Cow"].contains(&name.as_str()) => Self::of(inner),
            Some((name, Some(byte))) if name == "Vec" && is_u8(byte) => Self::new(ty, Passing::Bytes, Text::Hex(None)),
            Some((name, None)) => match name.as_str() {
                "String" | "str" => Self::new(ty, Passing::Str, Text::Any),
                "bool" => Self::new(ty, Passing::Value, Text::Bool),
                "char" => Self::new(ty, Passing::Value, Text::Char),
                "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => {
                    Self::new(ty, Passing::Value, Text::Integer { signed: true })
                }
                "u8" | "u16" | "u32" | "u64" | "u128" | "usize" => {
                    Self::new(ty, Passing::Value, Text::Integer { signed: false })
                }
                "Uuid" => Self::new(ty, Passing::Borrow, Text::Uuid),
                _ => Self::new(ty, Passing::Borrow, Text::Any),
            },
            _ => match ty {
                Type::Array(TypeArray { elem, len, .. }) if is_u8(elem) => {
                    Self::new(ty, Passing::Borrow, Text::Hex(length(len)))
                }
                Type::Slice(slice) if is_u8(&slice.elem) => Self::new(ty, Passing::Bytes, Text::Hex(None)),
                _ => Self::new(ty, Passing::Borrow, Text::Any),
            },
        }
    }

    /// One token that stands for the type: the compilers that are in use do not join several.
    pub(crate) fn span(&self) -> Span {
        last_segment(self.inner).map_or_else(|| self.inner.span(), |segment| segment.ident.span())
    }

    const fn new(inner: &'a Type, passing: Passing, text: Text) -> Self {
        Self { inner, passing, text }
    }
}

/// Whether it is an `Option`, by its name.
pub(crate) fn is_option(ty: &Type) -> bool {
    last_segment(peel(ty)).is_some_and(|segment| segment.ident == "Option")
}

/// The tokens of a type without spaces, each path cut to its last segment: `std::vec::Vec<a::B>` is
/// `Vec<B>`. So the text does not change when only a `use` does.
pub(crate) fn normalized(ty: &Type) -> String {
    let mut out = Vec::new();
    flatten(ty.to_token_stream(), &mut out);
    let mut text = String::new();
    let mut tokens = out.iter().map(String::as_str).peekable();
    while let Some(token) = tokens.next() {
        if token == "::" {
            // A path that begins with `::`, a turbofish, or the tail of a path whose head was dropped.
            continue;
        }
        let is_name = |token: &str| token.starts_with(|c: char| c.is_alphabetic() || c == '_');
        if is_name(token) && tokens.peek() == Some(&"::") {
            let mut ahead = tokens.clone();
            ahead.next();
            if ahead.peek().is_some_and(|next| is_name(next)) {
                continue;
            }
        }
        if is_name(token) && text.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            text.push(' ');
        }
        text.push_str(token);
    }
    text
}

/// A type without the invisible groups that macros put around it, and without parentheses.
fn peel(ty: &Type) -> &Type {
    match ty {
        Type::Group(TypeGroup { elem, .. }) | Type::Paren(TypeParen { elem, .. }) => peel(elem),
        _ => ty,
    }
}

fn last_segment(ty: &Type) -> Option<&PathSegment> {
    match ty {
        Type::Path(path) if path.qself.is_none() => path.path.segments.last(),
        _ => None,
    }
}

/// The one type argument of a path segment; lifetimes do not count.
fn argument(segment: &PathSegment) -> Option<&Type> {
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else { return None };
    let mut types = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    });
    types.next().filter(|_| types.next().is_none())
}

fn is_u8(ty: &Type) -> bool {
    last_segment(peel(ty)).is_some_and(|segment| segment.ident == "u8")
}

fn length(len: &Expr) -> Option<usize> {
    match len {
        Expr::Lit(ExprLit { lit: Lit::Int(length), .. }) => length.base10_parse().ok(),
        _ => None,
    }
}

/// The tokens as text, `::` in one piece and raw identifiers without `r#`.
fn flatten(tokens: TokenStream, out: &mut Vec<String>) {
    let mut colon = false;
    for token in tokens {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ':' => {
                if colon && out.last().is_some_and(|last| last == ":") {
                    out.pop();
                    out.push("::".to_owned());
                    colon = false;
                } else {
                    out.push(":".to_owned());
                    colon = true;
                }
                continue;
            }
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::None => ("", ""),
                };
                out.push(open.to_owned());
                flatten(group.stream(), out);
                out.push(close.to_owned());
            }
            TokenTree::Ident(ident) => out.push(ident.unraw().to_string()),
            TokenTree::Punct(_) | TokenTree::Literal(_) => out.push(token.to_string()),
        }
        colon = false;
    }
    out.retain(|token| !token.is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Type {
        syn::parse_str(text).unwrap()
    }

    #[test]
    fn paths_are_cut_to_their_last_segment() {
        for (written, expected) in [
            ("i32", "i32"),
            ("::std::option::Option< chrono::NaiveDate >", "Option<NaiveDate>"),
            ("std::vec::Vec::<u8>", "Vec<u8>"),
            ("[ u8 ; 16 ]", "[u8;16]"),
            ("HashMap<String, (a::b::C, r#type)>", "HashMap<String,(C,type)>"),
            ("Box<dyn a::B + Send>", "Box<dyn B+Send>"),
            ("<a::T as b::Trait>::Out", "<T as Trait>Out"),
        ] {
            assert_eq!(normalized(&parse(written)), expected, "{written}");
        }
    }

    #[test]
    fn parts_are_known_by_name() {
        let known = |text: &str| {
            let ty = parse(text);
            let part = PartType::of(&ty);
            (normalized(part.inner), part.passing, part.text)
        };
        let plain = |inner: &str, passing, text| (inner.to_owned(), passing, text);
        assert_eq!(known("i64"), plain("i64", Passing::Value, Text::Integer { signed: true }));
        assert_eq!(known("std::sync::Arc<str>"), plain("str", Passing::Str, Text::Any));
        assert_eq!(known("Cow<'static, str>"), plain("str", Passing::Str, Text::Any));
        assert_eq!(known("Vec<u8>"), plain("Vec<u8>", Passing::Bytes, Text::Hex(None)));
        assert_eq!(known("Vec<u16>"), plain("Vec<u16>", Passing::Borrow, Text::Any));
        assert_eq!(known("[u8; 4]"), plain("[u8;4]", Passing::Borrow, Text::Hex(Some(4))));
        assert_eq!(known("uuid::Uuid"), plain("Uuid", Passing::Borrow, Text::Uuid));
        assert_eq!(known("Option<Box<u8>>"), plain("u8", Passing::Value, Text::Integer { signed: false }));
    }
}
