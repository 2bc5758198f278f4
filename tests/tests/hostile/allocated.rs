//! Counts what a thread allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, and a sum of all that each thread was ever given.
pub(crate) struct Counting;

fn count(bytes: usize) {
    // A thread that ends may allocate when its counter is gone.
    let _ = BYTES.try_with(|sum| sum.set(sum.get().saturating_add(bytes)));
}

#[allow(unsafe_code, reason = "an allocator is unsafe; this one hands everything on as it is")]
// SAFETY: every call is the system allocator's own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size.saturating_sub(layout.size()));
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// What this allocates on this thread, in bytes.
pub(crate) fn by<T>(run: impl FnOnce() -> T) -> (usize, T) {
    let before = BYTES.get();
    let result = run();
    (BYTES.get() - before, result)
}

#[test]
fn what_is_allocated_is_counted() {
    let (bytes, kept) = by(|| vec![0_u8; 1 << 20]);
    assert!((kept.len()..kept.len() + 1024).contains(&bytes), "{bytes}");
}
