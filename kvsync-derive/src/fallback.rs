//! What stands in for a model that cannot be one, so that one mistake is not told a second time
//! wherever the model is used.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Path};

/// An implementation of `Syncable` for any type. It never runs: an error stands beside it.
pub(crate) fn syncable(input: &DeriveInput, krate: &Path) -> TokenStream {
    let ident = &input.ident;
    let (generics, arguments, bounds) = input.generics.split_for_impl();
    let bounds = bounds.map(|bounds| bounds.predicates.iter().collect::<Vec<_>>()).unwrap_or_default();
    quote! {
        #[automatically_derived]
        impl #generics #krate::Syncable for #ident #arguments
        where
            #(#bounds,)*
            Self: 'static,
            // With a lifetime of its own, a bound that does not hold is no error until the impl is used.
            for<'unused> Self: #krate::__private::Serialize
                + #krate::__private::DeserializeOwned
                + ::core::marker::Send
                + ::core::marker::Sync,
        {
            type Codec = #krate::codec::MessagePack;
            type PrimaryKey = ();
            const SCHEMA: &'static #krate::model::Schema =
                &#krate::model::Schema::new("", "", &[], &[], ::core::option::Option::None, &[], 0,
                    ::core::option::Option::None, ::core::option::Option::None);
            fn primary_key(&self) -> Self::PrimaryKey { ::core::unreachable!() }
            fn write_primary_key(_: &Self::PrimaryKey, _: &mut #krate::KeyWriter) { ::core::unreachable!() }
            fn write_primary(_: &Self::PrimaryKey, _: &mut #krate::KeyWriter) { ::core::unreachable!() }
            fn write_key(&self, _: usize, _: &mut #krate::KeyWriter) { ::core::unreachable!() }
        }
    }
}

/// An implementation of `KeyPart` for any type.
pub(crate) fn key_part(input: &DeriveInput, krate: &Path) -> TokenStream {
    let ident = &input.ident;
    let (generics, arguments, bounds) = input.generics.split_for_impl();
    quote! {
        #[automatically_derived]
        impl #generics #krate::KeyPart for #ident #arguments #bounds {
            fn write(&self, _: &mut #krate::PartWriter<'_>) { ::core::unreachable!() }
        }
    }
}
