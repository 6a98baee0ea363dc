//! The last few things that were read, so that what is asked for again and again is read once.

use std::collections::VecDeque;

/// The last few, the one that was used last at the end.
#[derive(Debug)]
pub struct Last<K, T> {
    most: usize,
    kept: VecDeque<(K, T)>,
}

impl<K: PartialEq, T> Last<K, T> {
    /// Keeps at most so many, and one at least.
    pub fn new(most: usize) -> Self {
        Self { most: most.max(1), kept: VecDeque::new() }
    }

    /// Gives what is kept for `key`, or reads it.
    ///
    /// # Errors
    /// As `read`; nothing is kept then.
    pub fn of<E>(&mut self, key: K, read: impl FnOnce(&K) -> Result<T, E>) -> Result<&T, E> {
        let at = self.kept.iter().position(|(known, _)| *known == key);
        let (key, value) = match at.and_then(|at| self.kept.remove(at)) {
            Some(known) => known,
            None => {
                let value = read(&key)?;
                if self.kept.len() >= self.most {
                    self.kept.pop_front();
                }
                (key, value)
            }
        };
        self.kept.push_back((key, value));
        Ok(&self.kept[self.kept.len() - 1].1)
    }
}

#[cfg(test)]
mod tests {
    use super::Last;

    #[test]
    fn what_was_used_of_late_is_read_once_and_no_more_is_kept() {
        let (mut last, mut reads) = (Last::new(2), Vec::new());
        for n in [1, 2, 1, 2, 1, 3, 1, 2] {
            let value = last.of(n, |n| {
                reads.push(*n);
                Ok::<_, ()>(n * 10)
            });
            assert_eq!(value, Ok(&(n * 10)));
        }
        assert_eq!(reads, [1, 2, 3, 2]);
        assert_eq!(last.of(9, |_| Err("not read")), Err("not read"));
        assert_eq!(last.of(2, |_| Err("kept")), Ok(&20));
    }
}
