//! Gathers mistakes, so that one compile shows all of them.

use std::cell::RefCell;
use std::fmt::Display;

use proc_macro2::Span;
use quote::ToTokens;

/// The mistakes found so far. Ends with [`Ctxt::finish`].
#[must_use]
#[derive(Debug, Default)]
pub(crate) struct Ctxt {
    errors: RefCell<Vec<syn::Error>>,
}

impl Ctxt {
    /// A mistake at these tokens.
    pub(crate) fn error(&self, at: impl ToTokens, message: impl Display) {
        self.push(syn::Error::new_spanned(at, message));
    }

    /// A mistake at this place.
    pub(crate) fn error_at(&self, span: Span, message: impl Display) {
        self.push(syn::Error::new(span, message));
    }

    /// What the parser says of tokens that it could not read.
    pub(crate) fn push(&self, error: syn::Error) {
        self.errors.borrow_mut().push(error);
    }

    /// How many there are, to see whether a step added any.
    pub(crate) fn count(&self) -> usize {
        self.errors.borrow().len()
    }

    /// All of them.
    pub(crate) fn finish(self) -> Vec<syn::Error> {
        self.errors.into_inner()
    }
}
