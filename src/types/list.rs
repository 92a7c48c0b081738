//! Lists: elements in order, cheap to add and remove at both ends.

use std::collections::VecDeque;

/// A list of byte strings.
#[derive(Debug, Clone, Default)]
pub struct List {
    elements: VecDeque<Box<[u8]>>,
}

impl List {
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// The name that OBJECT ENCODING answers.
    pub fn encoding(&self) -> &'static str {
        "quicklist"
    }

    /// Bytes that the elements take.
    pub fn memory(&self) -> usize {
        self.elements.capacity() * size_of::<Box<[u8]>>() + self.elements.iter().map(|e| e.len()).sum::<usize>()
    }

    /// Adds an element at the tail.
    pub fn push_back(&mut self, element: &[u8]) {
        self.elements.push_back(element.into());
    }

    /// Adds an element at the head.
    pub fn push_front(&mut self, element: &[u8]) {
        self.elements.push_front(element.into());
    }
}
