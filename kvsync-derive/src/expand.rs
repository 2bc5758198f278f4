//! Fourth stage: the code for a checked model. It only writes keys and calls kvsync.

use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::Index;
use syn::spanned::Spanned;

use crate::ast::Field;
use crate::check::Model;
use crate::keys::Key;
use crate::methods;
use crate::types::{PartType, is_option};

/// The implementation of `Syncable` and the methods of every key.
pub(crate) fn expand(model: &Model<'_>) -> TokenStream {
    let Model { ident, krate, .. } = model;
    let (key, pk) = (local("key"), local("primary_key"));
    let (schema, codec) = (schema(model), model.codec());
    let types: Vec<_> = model.primary_key.iter().map(|field| field.ty).collect();
    let values: Vec<_> = model.primary_key.iter().map(|field| cloned(field)).collect();
    let (pk_type, pk_value) = match (&types[..], &values[..]) {
        ([ty], [value]) => (quote!(#ty), quote!(#value)),
        _ => (quote!((#(#types,)*)), quote!((#(#values,)*))),
    };
    let write_primary_key = write_primary_key(model, &key, &pk);
    let write_primary = match model.keys.iter().filter(|key| !key.broken).find(|key| key.is_primary(&model.primary_key))
    {
        Some(spec) => write(spec, &key, |field| Part::new(field, |at| of_primary_key(model, field, &pk, at))),
        None => quote!(),
    };
    let arms = model.keys.iter().filter(|key| !key.broken).enumerate().map(|(index, spec)| {
        let writes = write(spec, &key, |field| {
            let ident = field.ident;
            let part = Part::new(field, |at| quote_spanned!(at=> &self.#ident));
            Part { absent: is_option(field.ty).then(|| quote!(#krate::__private::no_key(#key))), ..part }
        });
        quote!(#index => { #writes })
    });
    let methods = methods::expand(model);
    quote! {
        #[automatically_derived]
        impl #krate::Syncable for #ident {
            type Codec = #codec;
            type PrimaryKey = #pk_type;

            const SCHEMA: &'static #krate::model::Schema = &#schema;

            fn primary_key(&self) -> #pk_type {
                #pk_value
            }

            fn write_primary_key(#pk: &#pk_type, #key: &mut #krate::KeyWriter) {
                #write_primary_key
            }

            #[allow(unused_variables)]
            fn write_primary(#pk: &#pk_type, #key: &mut #krate::KeyWriter) {
                #write_primary
            }

            fn write_key(&self, index: usize, #key: &mut #krate::KeyWriter) {
                match index {
                    #(#arms)*
                    _ => #krate::__private::no_key(#key),
                }
            }
        }

        #methods
    }
}

/// A variable of generated code: no field's name can meet it.
pub(crate) fn local(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

/// A part of a key: the value to write, and the place to blame when its type cannot be a part.
pub(crate) struct Part {
    value: TokenStream,
    /// What to do when it is `None`, for an `Option`.
    absent: Option<TokenStream>,
    at: Span,
}

impl Part {
    /// This value, for a field. Whatever stands for the field blames the same token: the compiler then
    /// says once what it would say for each.
    pub(crate) fn new(field: &Field<'_>, value: impl FnOnce(Span) -> TokenStream) -> Self {
        let at = Span::call_site().located_at(PartType::of(field.ty).span());
        Self { value: value(at), absent: None, at }
    }

    fn write(&self, key: &Ident, stop: Option<char>) -> TokenStream {
        let (Self { value, absent, at }, stop) = (self, option(stop));
        let Some(absent) = absent else { return quote_spanned!(*at=> #key.part(#value, #stop);) };
        let part = local("part");
        let write = quote_spanned!(*at=> #key.part(#part, #stop));
        quote! {
            match #value {
                ::core::option::Option::Some(#part) => #write,
                ::core::option::Option::None => #absent,
            }
        }
    }
}

/// Writes a key: the literals of its format, and between them its parts.
pub(crate) fn write(spec: &Key<'_>, key: &Ident, part: impl Fn(&Field<'_>) -> Part) -> TokenStream {
    let mut code = TokenStream::new();
    let mut fields = spec.fields();
    for (index, literal) in spec.literals.iter().enumerate() {
        if index > 0 {
            code.extend(fields.next().map(|field| part(field).write(key, literal.chars().next())));
        }
        if !literal.is_empty() {
            code.extend(quote!(#key.literal(#literal);));
        }
    }
    code
}

/// Writes the primary key part by part, with `:` between.
fn write_primary_key(model: &Model<'_>, key: &Ident, pk: &Ident) -> TokenStream {
    let last = model.primary_key.len().saturating_sub(1);
    let parts = model.primary_key.iter().enumerate().map(|(index, field)| {
        let part = Part::new(field, |at| of_primary_key(model, field, pk, at));
        if index == last {
            return part.write(key, None);
        }
        let write = part.write(key, Some(':'));
        quote!(#write #key.literal(":");)
    });
    parts.collect()
}

/// A field's place in the primary key.
fn of_primary_key(model: &Model<'_>, field: &Field<'_>, pk: &Ident, at: Span) -> TokenStream {
    let place = model.primary_key.iter().position(|other| other.name == field.name).unwrap_or_default();
    let place = Index::from(place);
    if model.primary_key.len() == 1 { quote_spanned!(at=> #pk) } else { quote_spanned!(at=> &#pk.#place) }
}

fn cloned(field: &Field<'_>) -> TokenStream {
    let ident = field.ident;
    quote_spanned!(field.ty.span()=> ::core::clone::Clone::clone(&self.#ident))
}

fn schema(model: &Model<'_>) -> TokenStream {
    let Model { krate, table, generation, .. } = model;
    let (fields, names): (Vec<u32>, Vec<&str>) = model.fields.iter().map(|(hash, name)| (*hash, name.as_str())).unzip();
    let name = model.ident.to_string();
    let name = name.trim_start_matches("r#");
    let primary_key = model.primary_key.iter().map(|field| column(model, field));
    let keys = model.keys.iter().filter(|key| !key.broken).map(|key| spec(model, key));
    let primary = option(model.primary.map(Literal::usize_suffixed));
    let ttl = option(model.ttl.map(|(seconds, jitter)| {
        let jitter = Literal::f64_suffixed(jitter);
        quote!(#krate::model::Ttl::from_secs(#seconds, #jitter))
    }));
    let live_if = option(model.live_if.as_ref());
    quote! {
        #krate::model::Schema::new(
            #name,
            #table,
            &[#(#primary_key),*],
            &[#(#keys),*],
            #primary,
            &[#(#fields),*],
            #generation,
            #ttl,
            #live_if,
        )
        .with_field_names(&[#(#names),*])
    }
}

fn spec(model: &Model<'_>, key: &Key<'_>) -> TokenStream {
    let krate = &model.krate;
    let Key { name, format, literals, of_primary, attr, .. } = key;
    let flags = [&attr.immutable, &attr.pointer, &attr.assume_unique].map(Option::is_some);
    let columns = key.fields().map(|field| column(model, field));
    quote! {
        #krate::model::KeySpec::new(
            #name,
            #format,
            &[#(#literals),*],
            &[#(#columns),*],
            #of_primary,
            #(#flags),*
        )
    }
}

/// The name of a field's column in SQL, which may be another than in Rust. Where no table is named there
/// may be no `table!` to ask.
fn column(model: &Model<'_>, field: &Field<'_>) -> TokenStream {
    let (krate, name) = (&model.krate, field.column());
    let ident = ["", "r#"].iter().find_map(|raw| syn::parse_str::<Ident>(&format!("{raw}{name}")).ok());
    let (Some(table), Some(column)) = (model.module, ident) else { return quote!(#name) };
    quote!(<#table::#column as #krate::__private::Column>::NAME)
}

fn option(value: Option<impl ToTokens>) -> TokenStream {
    value.map_or_else(|| quote!(::core::option::Option::None), |value| quote!(::core::option::Option::Some(#value)))
}
