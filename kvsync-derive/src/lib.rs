//! The derives of kvsync. Use them through `kvsync`, whose documentation has the reference.
//!
//! One stage a file: `attr` and `foreign` read attributes, `ast` the struct, `check` and `keys` say
//! what is wrong and make a model of it, `expand` and `methods` write the code. Mistakes gather in
//! `ctxt`, so that one compile shows all of them, and a type with mistakes still gets an
//! implementation (`fallback`), so that none is told twice.

mod ast;
mod attr;
mod automaton;
mod check;
mod ctxt;
mod expand;
mod fallback;
mod fields;
mod foreign;
mod format;
mod key_part;
mod keys;
mod methods;
mod overlap;
mod suggest;
#[cfg(test)]
mod tests;
mod types;

use proc_macro2::TokenStream;
use syn::DeriveInput;

use self::ast::Input;
use self::attr::{Derive, SyncAttr};
use self::ctxt::Ctxt;

/// Defined in `kvsync-derive`; to be used as `kvsync::Syncable`.
#[proc_macro_derive(Syncable, attributes(sync_key, sync, diesel, serde))]
pub fn syncable(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    run(input, derive_syncable)
}

/// Defined in `kvsync-derive`; to be used as `kvsync::KeyPart`.
#[proc_macro_derive(KeyPart, attributes(sync))]
pub fn key_part(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    run(input, derive_key_part)
}

/// The code for a type, and its mistakes.
type Derived = (TokenStream, Vec<syn::Error>);

fn run(input: proc_macro::TokenStream, derive: fn(&DeriveInput) -> Derived) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as DeriveInput);
    let (mut code, errors) = derive(&input);
    code.extend(errors.iter().map(syn::Error::to_compile_error));
    code.into()
}

fn derive_syncable(input: &DeriveInput) -> Derived {
    let cx = Ctxt::default();
    let code = if let Some(read) = Input::read(&cx, input) {
        expand::expand(&check::check(&cx, &read))
    } else {
        // The attributes were read, and their mistakes told, on the way.
        let sync = SyncAttr::read(&Ctxt::default(), &input.attrs, Derive::Syncable);
        fallback::syncable(input, &check::krate(sync.krate.as_ref()))
    };
    (code, cx.finish())
}

fn derive_key_part(input: &DeriveInput) -> Derived {
    let cx = Ctxt::default();
    let sync = SyncAttr::read(&cx, &input.attrs, Derive::KeyPart);
    let krate = check::krate(sync.krate.as_ref());
    let code = key_part::expand(&cx, input, &krate).unwrap_or_else(|| fallback::key_part(input, &krate));
    (code, cx.finish())
}
