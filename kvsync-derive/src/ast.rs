//! Second stage: the struct with its fields, as far as a model can be made of it.

use quote::ToTokens;
use syn::ext::IdentExt;
use syn::{Data, DeriveInput, Fields, Ident, Type, Visibility};

use crate::attr::{Derive, KeyAttr, SyncAttr, misplaced};
use crate::ctxt::Ctxt;
use crate::foreign::{DieselField, DieselStruct, SerdeField, SerdeStruct};

/// A struct that derives `Syncable`.
pub(crate) struct Input<'a> {
    pub(crate) ident: &'a Ident,
    pub(crate) vis: &'a Visibility,
    pub(crate) fields: Vec<Field<'a>>,
    pub(crate) keys: Vec<KeyAttr>,
    pub(crate) sync: SyncAttr,
    pub(crate) diesel: DieselStruct,
    pub(crate) serde: SerdeStruct,
}

/// One of its fields.
pub(crate) struct Field<'a> {
    pub(crate) ident: &'a Ident,
    /// Its name, without `r#`.
    pub(crate) name: String,
    pub(crate) ty: &'a Type,
    pub(crate) diesel: DieselField,
    pub(crate) serde: SerdeField,
}

impl<'a> Input<'a> {
    /// Reads a struct; nothing, and an error told, when it has another shape than a model's.
    pub(crate) fn read(cx: &Ctxt, input: &'a DeriveInput) -> Option<Self> {
        let keys = KeyAttr::all(cx, &input.attrs);
        let sync = SyncAttr::read(cx, &input.attrs, Derive::Syncable);
        let fields = named_fields(cx, input);
        if generic(cx, input) {
            return None;
        }
        Some(Self {
            ident: &input.ident,
            vis: &input.vis,
            fields: fields?,
            keys,
            sync,
            diesel: DieselStruct::read(&input.attrs),
            serde: SerdeStruct::read(&input.attrs),
        })
    }

    /// The name of the table: Diesel's own default where none is given.
    pub(crate) fn table(&self) -> String {
        self.diesel.table.clone().unwrap_or_else(|| self.prefix() + "s")
    }

    /// The names of its fields.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.name.as_str())
    }

    /// Their columns.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(Field::column)
    }

    /// What the formats of its keys could begin with, for messages.
    pub(crate) fn prefix(&self) -> String {
        snake_case(&self.ident.unraw().to_string())
    }

    /// A format for a key of this field, for messages.
    pub(crate) fn example(&self, field: &str) -> String {
        format!("{}:{field}:<{field}>", self.prefix())
    }

    /// The field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&Field<'a>> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The field of this column.
    pub(crate) fn column(&self, column: &str) -> Option<&Field<'a>> {
        self.fields.iter().find(|field| field.column() == column)
    }
}

impl Field<'_> {
    /// The column that it comes from.
    pub(crate) fn column(&self) -> &str {
        self.diesel.column.as_deref().unwrap_or(&self.name)
    }

    /// Why it cannot be part of a key; nothing when it can.
    pub(crate) fn no_column(&self) -> Option<String> {
        let name = &self.name;
        if self.diesel.embed {
            return Some(format!(
                "field `{name}` is embedded, and what it holds is not visible here; move the column that you need \
                 into this struct"
            ));
        }
        let help = "a key is made of columns of the model's own table";
        self.diesel.computed.then(|| format!("field `{name}` is computed by its `select_expression`; {help}"))
    }
}

/// `HTTPLog` is `h_t_t_p_log`, as Diesel has it.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for character in name.chars() {
        if character.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(character.to_lowercase());
    }
    snake
}

fn named_fields<'a>(cx: &Ctxt, input: &'a DeriveInput) -> Option<Vec<Field<'a>>> {
    let fields = match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => &fields.named,
            Fields::Unnamed(fields) => {
                let help = "the formats of keys and the stored bytes name them; write `{ id: i32, .. }`";
                cx.error(fields, format!("the fields of a synced model have names, because {help}"));
                return None;
            }
            Fields::Unit => {
                cx.error(&input.ident, "a synced model has fields, one for each column; this struct has none");
                return None;
            }
        },
        Data::Enum(data) => {
            let unit = !data.variants.is_empty() && data.variants.iter().all(|variant| variant.fields.is_empty());
            let help = if unit { "; if this is a part of a key, derive `KeyPart` for it" } else { "" };
            not_a_struct(cx, data.enum_token, "an enum", help);
            return None;
        }
        Data::Union(data) => {
            not_a_struct(cx, data.union_token, "a union", "");
            return None;
        }
    };
    let read = fields.iter().filter_map(|field| {
        misplaced(cx, &field.attrs);
        let ident = field.ident.as_ref()?;
        Some(Field {
            ident,
            name: ident.unraw().to_string(),
            ty: &field.ty,
            diesel: DieselField::read(&field.attrs),
            serde: SerdeField::read(&field.attrs),
        })
    });
    Some(read.collect())
}

fn not_a_struct(cx: &Ctxt, token: impl ToTokens, what: &str, help: &str) {
    cx.error(
        token,
        format!("a synced model is a struct, because its fields are the columns of a row; this is {what}{help}"),
    );
}

fn generic(cx: &Ctxt, input: &DeriveInput) -> bool {
    let parameters = &input.generics.params;
    for parameter in parameters {
        let (what, help) = match parameter {
            syn::GenericParam::Lifetime(_) => {
                ("lifetime", "it owns its columns, because it outlives the statement; use `String` in place of `&str`")
            }
            syn::GenericParam::Type(_) | syn::GenericParam::Const(_) => {
                ("generic", "its bytes and keys belong to one type; derive `Syncable` for a struct of its own")
            }
        };
        cx.error(parameter, format!("a synced model has no {what} parameters: {help}"));
    }
    !parameters.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_named_as_diesel_names_them() {
        for (model, expected) in [("User", "user"), ("FooBar", "foo_bar"), ("HTTPLog", "h_t_t_p_log")] {
            assert_eq!(snake_case(model), expected);
        }
    }
}
