//! Which of two versions is the newer one.

use std::cmp::Ordering;

/// As people count: runs of digits by their value, the rest by its bytes, so that 12.10 is newer than 12.9.
pub(crate) fn compare(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left, right);
    loop {
        let (text_left, text_right) = (cut(&mut left, is_text), cut(&mut right, is_text));
        let (number_left, number_right) = (cut(&mut left, is_digit), cut(&mut right, is_digit));
        let order = text_left
            .cmp(text_right)
            .then_with(|| by_value(number_left, number_right));
        if order != Ordering::Equal || (left.is_empty() && right.is_empty()) {
            return order;
        }
    }
}

fn is_digit(character: char) -> bool {
    character.is_ascii_digit()
}

fn is_text(character: char) -> bool {
    !is_digit(character)
}

/// Cuts off what is of the wanted kind at the beginning.
fn cut<'a>(text: &mut &'a str, wanted: fn(char) -> bool) -> &'a str {
    let end = text
        .find(|character: char| !wanted(character))
        .unwrap_or(text.len());
    let (head, tail) = text.split_at(end);
    *text = tail;
    head
}

fn by_value(left: &str, right: &str) -> Ordering {
    let (left_plain, right_plain) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
    left_plain
        .len()
        .cmp(&right_plain.len())
        .then_with(|| left_plain.cmp(right_plain))
        // 1.0 is not 1.00: an order has no two versions in one place.
        .then_with(|| left.len().cmp(&right.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_count_by_value() {
        for (older, newer) in [
            ("12.9", "12.10"),
            ("1", "2"),
            ("9", "10"),
            ("1.2", "1.2.1"),
            ("1.0", "1.00"),
            ("bookworm", "trixie"),
            ("20250101", "20251231"),
            ("99999999999999999999", "100000000000000000000"),
        ] {
            assert_eq!(compare(older, newer), Ordering::Less, "{older} {newer}");
            assert_eq!(compare(newer, older), Ordering::Greater, "{older} {newer}");
        }
    }

    proptest! {
        #[test]
        fn it_is_an_order(a in "[a-b0-2.]{0,5}", b in "[a-b0-2.]{0,5}", c in "[a-b0-2.]{0,5}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &b) == Ordering::Equal, a == b);
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }
    }
}
