//! The longest common subsequence of two strings, by dynamic programming.

/// A run of bytes that both strings have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// Where it starts in the first string.
    pub a: usize,
    /// Where it starts in the second.
    pub b: usize,
    /// How long it is.
    pub len: usize,
}

/// The lengths of the longest common subsequences of all prefixes.
pub struct Table<'s> {
    a: &'s [u8],
    b: &'s [u8],
    /// `lengths[i * (b.len() + 1) + j]` is that of the first `i` bytes of `a` and `j` of `b`.
    lengths: Vec<u32>,
}

/// The most bytes that a table may take: as much as the largest string.
const TABLE_BYTES_MAX: usize = 512 << 20;

impl<'s> Table<'s> {
    /// Computes the table in O(N*M); `None` where it would be too large.
    pub fn new(a: &'s [u8], b: &'s [u8]) -> Option<Table<'s>> {
        let width = b.len().checked_add(1)?;
        let cells = (a.len() + 1).checked_mul(width)?;
        if cells.checked_mul(size_of::<u32>())? > TABLE_BYTES_MAX {
            return None;
        }
        let mut lengths = Vec::new();
        lengths.try_reserve_exact(cells).ok()?;
        lengths.resize(cells, 0u32);
        for (i, x) in a.iter().enumerate() {
            let (above, row) = lengths[i * width..].split_at_mut(width);
            for (j, y) in b.iter().enumerate() {
                row[j + 1] = if x == y { above[j] + 1 } else { above[j + 1].max(row[j]) };
            }
        }
        Some(Table { a, b, lengths })
    }

    fn at(&self, i: usize, j: usize) -> u32 {
        self.lengths[i * (self.b.len() + 1) + j]
    }

    /// Its length.
    pub fn length(&self) -> usize {
        self.at(self.a.len(), self.b.len()) as usize
    }

    /// The matching runs, last first, as Redis finds them: from the ends of both strings.
    pub fn matches(&self) -> Vec<Match> {
        let mut found: Vec<Match> = Vec::new();
        self.walk(|i, j| match found.last_mut() {
            Some(last) if last.a == i + 1 && last.b == j + 1 => {
                *last = Match { a: i, b: j, len: last.len + 1 };
            }
            _ => found.push(Match { a: i, b: j, len: 1 }),
        });
        found
    }

    /// The subsequence itself.
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.length());
        self.walk(|i, _| text.push(self.a[i]));
        text.reverse();
        text
    }

    fn walk(&self, mut f: impl FnMut(usize, usize)) {
        let (mut i, mut j) = (self.a.len(), self.b.len());
        while i > 0 && j > 0 {
            if self.a[i - 1] == self.b[j - 1] {
                (i, j) = (i - 1, j - 1);
                f(i, j);
            } else if self.at(i - 1, j) > self.at(i, j - 1) {
                i -= 1;
            } else {
                j -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subsequence_and_its_runs_are_found_from_the_end() {
        let table = Table::new(b"ohmytext", b"mynewtext").unwrap();
        assert_eq!((table.length(), table.text()), (6, b"mytext".to_vec()));
        assert_eq!(table.matches(), [Match { a: 4, b: 5, len: 4 }, Match { a: 2, b: 0, len: 2 }]);
        assert_eq!(Table::new(b"", b"abc").unwrap().text(), b"");
    }
}
