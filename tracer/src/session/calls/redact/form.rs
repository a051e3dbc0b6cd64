//! Whether a word is made of random bytes, by its form only.
//!
//! What is random is told from names by how names are made: of words with vowels in them, each in one case.

/// As many as a key of 128 bits has.
const KEY_DIGITS: usize = 32;

/// 8-4-4-4-12 hexadecimal digits: what has a name by which it is asked for.
pub(super) fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12])
        && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// Whether it is as long, and as mixed, as what programs make of random bytes, and no words.
pub(super) fn is_made(part: &str) -> bool {
    let is_hex = |word: &str| {
        word.len() >= 20
            && word.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !word.bytes().all(|byte| byte.is_ascii_digit())
    };
    // Base64 for URLs has dashes in it, and so do names.
    has_all_kinds(part) && is_mixed(part, 20) && !is_of_words(part)
        || is_base64(part)
        || is_key_in_groups(part)
        || is_code(part)
        || part.split(['-', '_']).any(|word| {
            is_hex(word)
                || is_mixed(word, 16) && !(has_all_kinds(word) && is_of_words(word))
                || is_base64(word)
                || is_letters(word)
        })
}

/// The same with the other two signs of base64.
pub(super) fn is_made_with_signs(text: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    if !text.bytes().all(is_base64) {
        return false;
    }
    let joined = text.replace(['/', '+', '='], "");
    has_all_kinds(&joined) && is_mixed(&joined, 20)
}

fn has_all_kinds(text: &str) -> bool {
    let has = |is: fn(&u8) -> bool| text.as_bytes().iter().any(is);
    has(u8::is_ascii_digit) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase)
}

fn is_mixed(word: &str, least: usize) -> bool {
    const ONE_IN: usize = 5;
    let kind = |byte: u8| match byte {
        b'0'..=b'9' => 0,
        b'a'..=b'z' => 1,
        b'A'..=b'Z' => 2,
        _ => 3,
    };
    let kinds: Vec<u8> = word.bytes().map(kind).collect();
    // `Name` changes as a name does.
    let changes = kinds.windows(2).filter(|pair| pair[0] != pair[1] && *pair != [2, 1]).count();
    word.len() >= least && changes * ONE_IN >= word.len()
}

/// Letters of both cases and digits, of which few are in what could be a word: `MacBookPro18` is none.
fn is_base64(text: &str) -> bool {
    const LEAST: usize = 12;
    /// Random bytes have a dash in 32 characters, names one behind each word.
    const BETWEEN_DASHES: usize = 7;
    let is_dash = |byte: &u8| matches!(byte, b'-' | b'_');
    let dashes = text.bytes().filter(|byte| is_dash(byte)).count();
    if text.len() < LEAST || dashes * BETWEEN_DASHES > text.len() || !has_all_kinds(text) {
        return false;
    }
    let bytes = text.as_bytes();
    if !bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || is_dash(byte)) {
        return false;
    }
    !is_of_words(text)
}

/// At least half of its letters are in what can be words.
pub(super) fn is_of_words(text: &str) -> bool {
    let letters = text.bytes().filter(u8::is_ascii_alphabetic).count();
    2 * of_words(text.as_bytes()) >= letters
}

/// How many letters are in runs, as `HTTPServer` has two of, that can be words.
fn of_words(bytes: &[u8]) -> usize {
    /// Shorter ones are too often in what is random.
    const LEAST: usize = 3;
    let is_word =
        |run: &&[u8]| run.len() >= LEAST && run.iter().any(|byte| b"aeiouyAEIOUY".contains(byte));
    let mut all = 0;
    for letters in bytes.split(|byte| !byte.is_ascii_alphabetic()) {
        let mut begin = 0;
        for at in 1..=letters.len() {
            let ends = at == letters.len()
                || letters[at].is_ascii_uppercase()
                    && (letters[at - 1].is_ascii_lowercase()
                        || letters.get(at + 1).is_some_and(u8::is_ascii_lowercase));
            if ends {
                all += Some(&letters[begin..at]).filter(is_word).map_or(0, <[u8]>::len);
                begin = at;
            }
        }
    }
    all
}

/// Hexadecimal digits in groups.
fn is_key_in_groups(part: &str) -> bool {
    let digits = part.bytes().filter(u8::is_ascii_hexdigit).count();
    let dashes = part.bytes().filter(|byte| *byte == b'-').count();
    dashes > 0 && digits >= KEY_DIGITS && digits + dashes == part.len()
}

/// `A1B2C-D3E4F-G5H6J`: groups of one length, of which some have letters and digits, in small letters all.
fn is_code(part: &str) -> bool {
    const GROUP: std::ops::RangeInclusive<usize> = 4..=8;
    let groups = || part.split('-');
    let length = groups().next().map_or(0, str::len);
    let of = |is: fn(&u8) -> bool| part.as_bytes().iter().any(is);
    // `tool-win32-arm64` is a name.
    let least = if of(u8::is_ascii_lowercase) { groups().count() } else { 2 };
    groups().count() >= 3
        && GROUP.contains(&length)
        && groups().all(|group| group.len() == length)
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !(of(u8::is_ascii_lowercase) && of(u8::is_ascii_uppercase))
        && groups().filter(|group| is_of_both(group)).count() >= least
}

/// Has letters and digits.
pub(super) fn is_of_both(word: &str) -> bool {
    let has = |is: fn(&u8) -> bool| word.as_bytes().iter().any(is);
    has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic)
}

/// Letters of one case that are no words: two of few vowels, many consonants in a row, and letters that are rare.
fn is_letters(word: &str) -> bool {
    const LEAST: usize = 24;
    let one_case = word.bytes().all(|byte| byte.is_ascii_lowercase())
        || word.bytes().all(|byte| byte.is_ascii_uppercase());
    if word.len() < LEAST || !one_case {
        return false;
    }
    let word = word.to_ascii_lowercase();
    let is_vowel = |c: char| "aeiouy".contains(c);
    let vowels = word.chars().filter(|c| is_vowel(*c)).count();
    let consonants = word.split(is_vowel).map(str::len).max().unwrap_or(0);
    let rare = word.bytes().filter(|byte| b"jqxz".contains(byte)).count();
    let signs = [10 * vowels < 3 * word.len(), consonants >= 5, 12 * rare >= word.len()];
    signs.into_iter().filter(|sign| *sign).count() >= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_random_is_told_from_names() {
        for random in [
            "4f2a-90bc-11de-7a3b-c4d5-e6f7-0819-2a3b",
            "0f2a90bc11de7a3b-c4d5e6f708192a3b",
            "LJSF7-A3EY4-8TA9M-E79DT-UAUBP",
            "k7f9-2mq4-x8b3",
            "tR4xQw9LmZ2p",
            "Xk2-pQ8vTz1R",
            "qkzjvwtrxbnmplkdfghwqzvc",
            "QKZJVWTRXBNMPLKDFGHWQZVC",
        ] {
            assert!(is_made(random), "{random}");
        }
        for name in [
            "internationalization",
            "antidisestablishmentarianism",
            "correcthorsebatterystaple",
            "invoke-with-response-stream",
            "MacBookPro18",
            "iPhone14ProMax",
            "GetFoundationModelAvailability2",
            "OAuth2Callback",
            "SHA256withRSA",
            "Base64UrlEncoder",
            "DynamoDB_20120810",
            "Meta-Llama-3.1-70B-Instruct-Turbo",
            "Mixtral-8x7B-Instruct-v0.1",
            "DeepSeek-R1-Distill-Qwen-32B",
            "GLM-4-9B-Chat-1M",
            "Qwen2-VL-72B-Instruct",
            "gpt-4o-mini-2024-07-18",
            "claude-3-5-sonnet-20241022",
            "prompt-caching-2024-07-31",
            "panex-win32-arm64",
            "OpenJDK_64-Bit_Server_VM",
        ] {
            assert!(!is_made(name), "{name}");
        }
        assert!(is_made_with_signs("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"));
        assert!(!is_made_with_signs("group/subgroup/Project2/AnotherName"));
    }
}
