//! The format of a key: literal text and `<field>` placeholders; `<<` and `>>` are the characters themselves.

/// A format, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Format {
    /// The text before, between and after the placeholders: one more than there are placeholders.
    pub(crate) literals: Vec<String>,
    /// The placeholders, in order.
    pub(crate) placeholders: Vec<Placeholder>,
    /// What is wrong with it.
    pub(crate) mistakes: Vec<String>,
}

/// `<name>` in a format.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Placeholder {
    /// What stands between `<` and `>`.
    pub(crate) name: String,
    /// Where its `<` stands: the first character of the format is in column 1.
    pub(crate) column: usize,
}

/// Characters that no format begins with: kvsync's own keys do.
const RESERVED: [char; 4] = ['@', '~', '!', '='];

impl Format {
    /// Takes a format apart and notes everything in its syntax that is wrong.
    pub(crate) fn parse(text: &str) -> Self {
        let mut format = Self::default();
        let mut literal = String::new();
        let mut characters = (1..).zip(text.chars()).peekable();
        while let Some((column, character)) = characters.next() {
            match character {
                '<' | '>' if characters.next_if(|(_, next)| *next == character).is_some() => literal.push(character),
                '>' => format.mistake(column, "stray `>`", "write `>>` for the character itself"),
                '<' => {
                    let mut name = String::new();
                    while let Some((_, next)) = characters.next_if(|(_, next)| !"<>".contains(*next)) {
                        name.push(next);
                    }
                    if characters.next_if(|(_, next)| *next == '>').is_some() {
                        format.literals.push(std::mem::take(&mut literal));
                        format.placeholders.push(Placeholder { name, column });
                    } else {
                        let name = name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
                        let name = if name.is_empty() { "field" } else { name };
                        let help = format!("close it, as in `<{name}>`, or write `<<` for the character itself");
                        format.mistake(column, "`<` without its `>`", &help);
                    }
                }
                _ => literal.push(character),
            }
        }
        format.literals.push(literal);
        format.check_literals(text);
        format
    }

    /// Mistakes of the text around the placeholders.
    fn check_literals(&mut self, text: &str) {
        if let Some(first) = text.chars().next().filter(|first| RESERVED.contains(first)) {
            self.mistakes.push(format!(
                "kvsync keeps keys that begin with `{first}` for itself; begin with text such as `user:`"
            ));
        }
        let mut found = Vec::new();
        for (index, after) in self.literals.iter().enumerate().skip(1) {
            let Some(before) = self.placeholders.get(index - 1) else { continue };
            match (after.chars().next(), self.placeholders.get(index)) {
                (None, Some(next)) => found.push(format!(
                    "nothing stands between `<{0}>` and `<{1}>` (column {2}), so that where one ends is lost; put a \
                     character there, as in `<{0}>:<{1}>`",
                    before.name, next.name, next.column
                )),
                (Some('%'), _) => found.push(format!(
                    "`%` follows `<{}>` (column {}), but `%` is what escapes characters inside a part; put another \
                     character there",
                    before.name, before.column
                )),
                _ => {}
            }
        }
        self.mistakes.append(&mut found);
    }

    fn mistake(&mut self, column: usize, what: &str, help: &str) {
        self.mistakes.push(format!("{what} (column {column}); {help}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (Vec<String>, Vec<String>) {
        let format = Format::parse(text);
        assert_eq!(format.mistakes, Vec::<String>::new(), "{text}");
        (format.literals, format.placeholders.into_iter().map(|placeholder| placeholder.name).collect())
    }

    fn owned(text: &[&str]) -> Vec<String> {
        text.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn literals_stand_around_placeholders() {
        assert_eq!(parts("a:<b>_<c>"), (owned(&["a:", "_", ""]), owned(&["b", "c"])));
        assert_eq!(parts("plain"), (owned(&["plain"]), vec![]));
    }

    #[test]
    fn doubled_brackets_are_characters() {
        assert_eq!(parts("<<<a>>>"), (owned(&["<", ">"]), owned(&["a"])));
        assert_eq!(parts("x<<y>>z"), (owned(&["x<y>z"]), vec![]));
    }

    #[test]
    fn every_mistake_has_its_column() {
        let columns = |text: &str| -> Vec<String> {
            let found = Format::parse(text).mistakes;
            found.iter().map(|m| m.split("column ").nth(1).unwrap().split(')').next().unwrap().to_owned()).collect()
        };
        assert_eq!(columns("é>b<c"), ["2", "4"]);
        assert_eq!(columns("a<b<c>"), ["2"]);
        assert_eq!(columns("<a>>"), ["4"]);
        assert_eq!(columns("x<a><b>%"), ["5", "5"]);
    }
}
