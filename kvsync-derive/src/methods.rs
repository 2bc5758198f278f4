//! Fourth stage, the methods: a key builder and the fetches of every key.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::Type;

use crate::ast::Field;
use crate::check::Model;
use crate::expand::{Part, local, write};
use crate::keys::Key;
use crate::suggest::list;
use crate::types::{PartType, Passing};

/// The model's own `impl` with the methods of its keys.
pub(crate) fn expand(model: &Model<'_>) -> TokenStream {
    let ident = model.ident;
    let mut index = 0_usize;
    let methods = model.keys.iter().map(|key| {
        if key.broken {
            return in_name_only(model, key);
        }
        let methods = methods(model, key, index);
        index += 1;
        methods
    });
    let methods: TokenStream = methods.collect();
    quote! {
        #[automatically_derived]
        #[allow(dead_code, non_snake_case, private_bounds, private_interfaces)]
        impl #ident {
            #methods
        }
    }
}

fn methods(model: &Model<'_>, key: &Key<'_>, index: usize) -> TokenStream {
    let Model { ident, vis, krate, .. } = model;
    let parts: Vec<Param<'_>> = key.fields().map(Param::of).collect();
    let (params, args) = (parts.iter().map(Param::declared), parts.iter().map(Param::name));
    let (params, args) = (quote!(#(#params),*), quote!(#(#args),*));
    let (kv, builder, many) = (local("kv"), local("key"), local("parts"));
    let writes = write(key, &builder, |field| Part::new(field, |at| Param::of(field).borrowed(at)));
    let item = tuple(parts.iter().map(Param::item));
    let pattern = tuple(parts.iter().map(|part| part.name().to_token_stream()));
    let passed = parts.iter().map(Param::passed);
    let [key_by, fetch_by, fetch_strict_by, lookup_by, fetch_many_by] = names(key);

    let fields = list(key.fields().map(|field| field.name.as_str()));
    let of = format!("[`{ident}`] with this {fields}, under its key `{}`", key.format);
    let key_doc = format!("The key `{}` of the [`{ident}`] with this {fields}, before any scope.", key.format);
    let fetch_doc = format!(
        "Fetches the {of}. `None` when the store has no such row to show; [`{lookup_by}`](Self::{lookup_by}) says why."
    );
    let strict_doc =
        format!("Fetches the {of}, and makes sure by its record that it is not an older one. For stores that evict.");
    let lookup_doc =
        format!("Looks up the {of}: found, certainly absent, or unknown, so that the database has to be asked.");
    let many_doc =
        format!("Fetches many [`{ident}`]s by {fields} in one round trip; the answers stand in the order asked.");
    let errors = " # Errors\n\n When the store does not answer, or what it holds there cannot be read.";
    quote! {
        #[doc = #key_doc]
        #[must_use]
        #vis fn #key_by(#params) -> #krate::Key {
            let mut #builder = <#krate::KeyWriter as ::core::default::Default>::default();
            #writes
            #krate::__private::key(#builder)
        }

        #[doc = #fetch_doc]
        #[doc = ""]
        #[doc = #errors]
        #vis fn #fetch_by(#kv: &#krate::KvSync, #params) -> #krate::Result<::core::option::Option<Self>> {
            #kv.__fetch::<Self>(#index, Self::#key_by(#args))
        }

        #[doc = #strict_doc]
        #[doc = ""]
        #[doc = #errors]
        #vis fn #fetch_strict_by(#kv: &#krate::KvSync, #params) -> #krate::Result<::core::option::Option<Self>> {
            #kv.__fetch_strict::<Self>(#index, Self::#key_by(#args))
        }

        #[doc = #lookup_doc]
        #[doc = ""]
        #[doc = #errors]
        #vis fn #lookup_by(#kv: &#krate::KvSync, #params) -> #krate::Result<#krate::Lookup<Self>> {
            #kv.__lookup::<Self>(#index, Self::#key_by(#args))
        }

        #[doc = #many_doc]
        #[doc = ""]
        #[doc = #errors]
        #vis fn #fetch_many_by(
            #kv: &#krate::KvSync,
            #many: impl ::core::iter::IntoIterator<Item = #item>,
        ) -> #krate::Result<::std::vec::Vec<::core::option::Option<Self>>> {
            let #many = ::core::iter::IntoIterator::into_iter(#many);
            let #many = ::core::iter::Iterator::map(#many, |#pattern| Self::#key_by(#(#passed),*));
            #kv.__fetch_many::<Self>(#index, ::core::iter::Iterator::collect(#many))
        }
    }
}

/// Methods that take anything, for a key with a mistake: calls to them shall not be errors too.
fn in_name_only(model: &Model<'_>, key: &Key<'_>) -> TokenStream {
    let Model { vis, krate, .. } = model;
    let params: Vec<_> = key.parts.iter().map(|_| quote!(_: impl ::core::marker::Sized)).collect();
    let [key_by, fetch_by, fetch_strict_by, lookup_by, fetch_many_by] = names(key);
    let option = quote!(#krate::Result<::core::option::Option<Self>>);
    quote! {
        #vis fn #key_by(#(#params),*) -> #krate::Key { ::core::unreachable!() }
        #vis fn #fetch_by(_: &#krate::KvSync, #(#params),*) -> #option { ::core::unreachable!() }
        #vis fn #fetch_strict_by(_: &#krate::KvSync, #(#params),*) -> #option { ::core::unreachable!() }
        #vis fn #lookup_by(_: &#krate::KvSync, #(#params),*) -> #krate::Result<#krate::Lookup<Self>> {
            ::core::unreachable!()
        }
        #vis fn #fetch_many_by(
            _: &#krate::KvSync,
            _: impl ::core::iter::IntoIterator,
        ) -> #krate::Result<::std::vec::Vec<::core::option::Option<Self>>> {
            ::core::unreachable!()
        }
    }
}

/// The names of a key's methods, at the literal that names the key: a method of the user's own with
/// such a name is an error that points there.
fn names(key: &Key<'_>) -> [Ident; 5] {
    ["key", "fetch", "fetch_strict", "lookup", "fetch_many"]
        .map(|what| format_ident!("{what}_by_{}", key.name, span = key.at.span()))
}

/// One thing alone, several as a tuple.
fn tuple(items: impl Iterator<Item = TokenStream>) -> TokenStream {
    let items: Vec<_> = items.collect();
    match &items[..] {
        [item] => item.clone(),
        items => quote!((#(#items),*)),
    }
}

/// A part as a parameter of a method.
struct Param<'a> {
    field: &'a Field<'a>,
    part: PartType<'a>,
}

impl<'a> Param<'a> {
    fn of(field: &'a Field<'_>) -> Self {
        Self { field, part: PartType::of(field.ty) }
    }

    fn name(&self) -> &'a Ident {
        self.field.ident
    }

    fn inner(&self) -> &'a Type {
        self.part.inner
    }

    /// `name: type`
    fn declared(&self) -> TokenStream {
        let (name, inner) = (self.name(), self.inner());
        match self.part.passing {
            Passing::Value => quote!(#name: #inner),
            Passing::Str => quote!(#name: &str),
            Passing::Bytes => quote!(#name: &[u8]),
            Passing::Borrow => quote!(#name: impl ::core::borrow::Borrow<#inner>),
        }
    }

    /// The parameter as a reference to what is written to the key.
    fn borrowed(&self, at: Span) -> TokenStream {
        let (name, inner) = (self.name(), self.inner());
        match self.part.passing {
            Passing::Value => quote_spanned!(at=> &#name),
            Passing::Str | Passing::Bytes => quote_spanned!(at=> #name),
            Passing::Borrow => quote_spanned!(at=> ::core::borrow::Borrow::<#inner>::borrow(&#name)),
        }
    }

    /// Its type in the items that `fetch_many` takes.
    fn item(&self) -> TokenStream {
        let inner = self.inner();
        match self.part.passing {
            Passing::Value => quote!(#inner),
            Passing::Str => quote!(impl ::core::convert::AsRef<str>),
            Passing::Bytes => quote!(impl ::core::convert::AsRef<[u8]>),
            Passing::Borrow => quote!(impl ::core::borrow::Borrow<#inner>),
        }
    }

    /// Such an item as the argument of the key builder.
    fn passed(&self) -> TokenStream {
        let name = self.name();
        match self.part.passing {
            Passing::Value | Passing::Borrow => quote!(#name),
            Passing::Str => quote!(::core::convert::AsRef::<str>::as_ref(&#name)),
            Passing::Bytes => quote!(::core::convert::AsRef::<[u8]>::as_ref(&#name)),
        }
    }
}
