//! The derive of `KeyPart`: a newtype writes what it wraps, an enum without data its variant's name.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Data, DataEnum, DeriveInput, Fields, Path};

use crate::attr::misplaced;
use crate::ctxt::Ctxt;
use crate::expand::local;

/// The implementation of `KeyPart`; nothing, and an error told, for types of other shapes.
pub(crate) fn expand(cx: &Ctxt, input: &DeriveInput, krate: &Path) -> Option<TokenStream> {
    let ident = &input.ident;
    let (generics, arguments, bounds) = input.generics.split_for_impl();
    let bounds = bounds.map(|bounds| bounds.predicates.iter().collect::<Vec<_>>()).unwrap_or_default();
    let part = local("part");
    let (body, bound) = match &input.data {
        Data::Struct(data) => newtype(cx, input, &data.fields, krate)?,
        Data::Enum(data) => (unit_enum(cx, data)?, None),
        Data::Union(data) => {
            cx.error(data.union_token, "a union is no part of a key; derive `KeyPart` for a struct or an enum");
            return None;
        }
    };
    Some(quote! {
        #[automatically_derived]
        impl #generics #krate::KeyPart for #ident #arguments
        where
            #(#bounds,)*
            #bound
        {
            fn write(&self, #part: &mut #krate::PartWriter<'_>) {
                #body
            }
        }
    })
}

/// Delegates to the one field.
fn newtype(
    cx: &Ctxt,
    input: &DeriveInput,
    fields: &Fields,
    krate: &Path,
) -> Option<(TokenStream, Option<TokenStream>)> {
    let mut rest = fields.iter();
    let (Some(field), None) = (rest.next(), rest.next()) else {
        let help = "put each field into the format on its own, or implement `kvsync::KeyPart` by hand";
        let message = format!("a struct with {} fields is no part of a key: {help}", fields.len());
        if fields.is_empty() {
            cx.error(&input.ident, "a struct without a field tells no rows apart, so it is no part of a key");
        } else {
            cx.error(fields, message);
        }
        return None;
    };
    misplaced(cx, &field.attrs);
    let part = local("part");
    let (ty, at) = (&field.ty, field.ty.span());
    let member = field.ident.as_ref().map_or_else(|| quote!(0), |ident| quote!(#ident));
    let body = quote_spanned!(at=> <#ty as #krate::KeyPart>::write(&self.#member, #part););
    // Only a type with parameters can need the bound; elsewhere the call above says it better.
    let bound = (!input.generics.params.is_empty()).then(|| quote!(#ty: #krate::KeyPart,));
    Some((body, bound))
}

/// Writes the name of the variant.
fn unit_enum(cx: &Ctxt, data: &DataEnum) -> Option<TokenStream> {
    let before = cx.count();
    let part = local("part");
    let arms = data.variants.iter().map(|variant| {
        misplaced(cx, &variant.attrs);
        if !variant.fields.is_empty() {
            let help = "only enums without data are; implement `kvsync::KeyPart` by hand if you need this one";
            cx.error(
                &variant.fields,
                format!("variant `{}` holds data, so its enum is no part of a key: {help}", variant.ident),
            );
        }
        let (ident, name) = (&variant.ident, variant.ident.unraw().to_string());
        quote!(Self::#ident => #name,)
    });
    let arms: TokenStream = arms.collect();
    if data.variants.is_empty() {
        cx.error(data.enum_token, "an enum without variants has no value, so it is no part of a key");
    }
    (cx.count() == before).then(|| quote!(#part.text(match self { #arms });))
}
