use bytes::Bytes;

/// What can be a key, a member, a field or a value: text and bytes of any kind. What is owned is moved,
/// what is borrowed is copied.
pub trait IntoBytes {
    /// The bytes.
    fn into_bytes(self) -> Bytes;
}

macro_rules! moved {
    ($($kind:ty),*) => {$(
        impl IntoBytes for $kind {
            fn into_bytes(self) -> Bytes {
                self.into()
            }
        }
    )*};
}

moved!(Bytes, String, Vec<u8>, Box<[u8]>);

impl<T: AsRef<[u8]> + ?Sized> IntoBytes for &T {
    fn into_bytes(self) -> Bytes {
        Bytes::copy_from_slice(self.as_ref())
    }
}

impl<const N: usize> IntoBytes for [u8; N] {
    fn into_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self)
    }
}
