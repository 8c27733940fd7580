//! Columns as VPP's `format` makes them: `%=Ns` centred with the odd blank on the left, `%-Ns` left,
//! `%Ns` right; a text wider than its column is cut.

use std::fmt::Display;

/// A line of cells, written behind one another.
#[derive(Debug)]
pub struct Row<'a> {
    text: &'a mut String,
}

impl<'a> Row<'a> {
    /// A row at the end of `text`.
    pub fn new(text: &'a mut String) -> Row<'a> {
        Row { text }
    }

    fn cell(self, width: usize, value: impl Display, before: impl FnOnce(usize) -> usize) -> Row<'a> {
        let value = value.to_string();
        let len = value.chars().count();
        let blank = width.saturating_sub(len);
        let before = before(blank).min(blank);
        self.text.extend(std::iter::repeat_n(' ', before));
        self.text.extend(value.chars().take(width));
        self.text.extend(std::iter::repeat_n(' ', blank - before));
        self
    }

    /// `%=Ns`.
    pub fn centre(self, width: usize, value: impl Display) -> Row<'a> {
        self.cell(width, value, |blank| blank.div_ceil(2))
    }

    /// `%-Ns`.
    pub fn left(self, width: usize, value: impl Display) -> Row<'a> {
        self.cell(width, value, |_| 0)
    }

    /// `%Ns`.
    pub fn right(self, width: usize, value: impl Display) -> Row<'a> {
        self.cell(width, value, |blank| blank)
    }

    /// `%s`.
    pub fn text(self, value: impl Display) -> Row<'a> {
        self.text.push_str(&value.to_string());
        self
    }

    /// Ends the line.
    pub fn end(self) {
        self.text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_show_interface() {
        let mut text = String::new();
        Row::new(&mut text)
            .centre(32, "Name")
            .centre(5, "Idx")
            .centre(10, "State")
            .centre(21, "MTU (L3/IP4/IP6/MPLS)")
            .centre(16, "Counter")
            .centre(16, "Count")
            .end();
        assert_eq!(
            text,
            "              Name               Idx    State  MTU (L3/IP4/IP6/MPLS)     Counter          Count     \n"
        );
    }

    #[test]
    fn cut_and_padded() {
        let mut text = String::new();
        Row::new(&mut text)
            .centre(8, "Learn-count")
            .text("|")
            .left(4, "ab")
            .text("|")
            .right(4, 7)
            .text("|")
            .end();
        assert_eq!(text, "Learn-co|ab  |   7|\n");
    }
}
