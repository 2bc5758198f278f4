//! The fingerprint of a model's fields: what a reader needs in order to tell whether it can read bytes
//! that another binary wrote.

use crate::ast::Field;
use crate::foreign::SerdeStruct;
use crate::types::normalized;

/// One FNV-1a hash for each field, of the name it is stored under and its type, with the name; ascending.
pub(crate) fn fingerprint(fields: &[Field<'_>], serde: &SerdeStruct) -> Vec<(u32, String)> {
    let of = |field| (hash(&description(field, serde)), stored_name(field, serde));
    let mut hashes: Vec<(u32, String)> = fields.iter().map(of).collect();
    hashes.sort_unstable();
    hashes
}

fn description(field: &Field<'_>, serde: &SerdeStruct) -> String {
    let name = stored_name(field, serde);
    // The NUL keeps a name apart from its type, whatever the two are.
    format!("{name}\0{}{}{}", normalized(field.ty), field.serde.form, serde.form)
}

/// The name that serde writes the field under.
pub(crate) fn stored_name(field: &Field<'_>, serde: &SerdeStruct) -> String {
    name(field, field.serde.rename.written.as_deref(), serde.rename_all.written.as_deref())
}

/// The name that serde reads the field under.
pub(crate) fn read_name(field: &Field<'_>, serde: &SerdeStruct) -> String {
    name(field, field.serde.rename.read.as_deref(), serde.rename_all.read.as_deref())
}

fn name(field: &Field<'_>, rename: Option<&str>, rule: Option<&str>) -> String {
    rename.map_or_else(|| renamed(&field.name, rule.unwrap_or_default()), str::to_owned)
}

/// serde's `rename_all`, for fields.
fn renamed(name: &str, rule: &str) -> String {
    let pascal = || -> String { name.split('_').map(capitalized).collect() };
    match rule {
        "UPPERCASE" | "SCREAMING_SNAKE_CASE" => name.to_ascii_uppercase(),
        "PascalCase" => pascal(),
        "camelCase" => {
            let pascal = pascal();
            let mut rest = pascal.chars();
            rest.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(rest).collect()
        }
        "kebab-case" => name.replace('_', "-"),
        "SCREAMING-KEBAB-CASE" => name.to_ascii_uppercase().replace('_', "-"),
        _ => name.to_owned(),
    }
}

fn capitalized(word: &str) -> String {
    let mut rest = word.chars();
    rest.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(rest).collect()
}

fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ast::Input;
    use crate::ctxt::Ctxt;

    fn fingerprint_of(text: &str) -> Vec<u32> {
        let input = syn::parse_str(text).unwrap();
        let cx = Ctxt::default();
        let input = Input::read(&cx, &input).unwrap();
        assert_eq!(cx.finish().len(), 0);
        fingerprint(&input.fields, &input.serde).into_iter().map(|(hash, _)| hash).collect()
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!((hash(""), hash("a"), hash("foobar")), (0x811c_9dc5, 0xe40c_292c, 0xbf9c_f968));
    }

    #[test]
    fn names_change_as_serde_changes_them() {
        for (rule, expected) in [
            ("lowercase", "created_at"),
            ("UPPERCASE", "CREATED_AT"),
            ("PascalCase", "CreatedAt"),
            ("camelCase", "createdAt"),
            ("snake_case", "created_at"),
            ("SCREAMING_SNAKE_CASE", "CREATED_AT"),
            ("kebab-case", "created-at"),
            ("SCREAMING-KEBAB-CASE", "CREATED-AT"),
        ] {
            assert_eq!(renamed("created_at", rule), expected);
        }
    }

    #[test]
    fn it_sees_what_is_stored_and_nothing_else() {
        let plain = fingerprint_of("struct A { id: i32, at: chrono::NaiveDate }");
        assert_eq!(plain, fingerprint_of("struct B { #[diesel(column_name = x)] at: NaiveDate, id: i32 }"));
        assert_eq!(plain, fingerprint_of("struct B { r#id: i32, #[serde(rename = \"at\")] day: NaiveDate }"));
        assert!(plain.is_sorted());
        for other in [
            "struct A { id: i64, at: NaiveDate }",
            "struct A { id: i32, on: NaiveDate }",
            "struct A { id: i32, #[serde(rename = \"on\")] at: NaiveDate }",
            "struct A { id: i32, #[serde(with = \"secs\")] at: NaiveDate }",
            "#[serde(rename_all = \"UPPERCASE\")] struct A { id: i32, at: NaiveDate }",
            "#[serde(into = \"B\", from = \"B\")] struct A { id: i32, at: NaiveDate }",
        ] {
            assert_ne!(plain, fingerprint_of(other), "{other}");
        }
    }
}
