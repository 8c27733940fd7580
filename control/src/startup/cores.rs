//! The cores that the process may use, and what a configuration says about them.

use super::ConfigError;
use super::words::Word;
use std::collections::BTreeSet;
use std::fmt;

/// The numbers of cores that a process may use: its affinity set (sched_getaffinity(2)), which in a container that is pinned
/// to some cores need not begin at 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cores(BTreeSet<u16>);

impl FromIterator<u16> for Cores {
    fn from_iter<I: IntoIterator<Item = u16>>(cores: I) -> Cores {
        Cores(cores.into_iter().collect())
    }
}

/// As `taskset` writes it: `0-3,6`.
impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut cores = self.0.iter().copied().peekable();
        while let Some(first) = cores.next() {
            let mut last = first;
            while let Some(next) = cores.next_if(|next| *next == last + 1) {
                last = next;
            }
            match last == first {
                true => write!(f, "{separator}{first}")?,
                false => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

impl Cores {
    /// How many there are.
    pub fn len(&self) -> u16 {
        self.0.len().min(u16::MAX.into()) as u16
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In rising order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().copied()
    }

    /// Whether the process may use a core.
    pub fn contains(&self, core: u16) -> bool {
        self.0.contains(&core)
    }

    /// A core.
    pub(super) fn read_one(&self, word: &Word) -> Result<u16, ConfigError> {
        self.check(word, number(word, &word.text)?)
    }

    /// A list of cores and ranges: `1-3,5`.
    pub(super) fn read_list(&self, word: &Word) -> Result<Vec<u16>, ConfigError> {
        let mut list = Vec::new();
        for part in word.text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(word, first)?, number(word, last)?);
            if first > last {
                return Err(ConfigError::new(word.at, format!("`{part}' runs backwards")));
            }
            for core in first..=last {
                let core = self.check(word, core)?;
                if list.contains(&core) {
                    return Err(ConfigError::new(word.at, format!("core {core} is in the list twice")));
                }
                list.push(core);
            }
        }
        Ok(list)
    }

    /// Bit n of the mask is core n; at most 128 cores can be written this way.
    pub(super) fn read_mask(&self, word: &Word) -> Result<Vec<u16>, ConfigError> {
        let digits = word.text.trim_start_matches("0x");
        let valid = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mask = u128::from_str_radix(digits, 16).ok().filter(|mask| valid && *mask != 0);
        let mask = mask.ok_or_else(|| {
            ConfigError::new(word.at, format!("expected a hexadecimal mask of cores, got `{}'", word.text))
        })?;
        (0..128).filter(|bit| mask >> bit & 1 == 1).map(|core| self.check(word, core)).collect()
    }

    fn check(&self, word: &Word, core: u64) -> Result<u16, ConfigError> {
        u16::try_from(core).ok().filter(|core| self.contains(*core)).ok_or_else(|| {
            ConfigError::new(word.at, format!("wharf may not use core {core}: its cores are {self}"))
        })
    }
}

fn number(word: &Word, text: &str) -> Result<u64, ConfigError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    number.ok_or_else(|| ConfigError::new(word.at, format!("expected a core, got `{text}'")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_taskset_writes_them() {
        let text = |cores: &[u16]| cores.iter().copied().collect::<Cores>().to_string();
        assert_eq!(text(&[]), "");
        assert_eq!(text(&[5, 4]), "4-5");
        assert_eq!(text(&[0, 1, 2, 6, 9, 8]), "0-2,6,8-9");
    }
}
