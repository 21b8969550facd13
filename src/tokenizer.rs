//! Prompts to token ids: CLIP's byte-pair encoding.
//!
//! Ids equal those of `CLIPTokenizer`, the tokenizer of the published code (without the optional `ftfy` package),
//! on any input: text is cleaned and lowercased, split by CLIP's pattern, then merged byte by byte with `</w>` at the
//! end of each word. HTML entities stay as they are written.

use std::collections::HashMap;
use std::path::Path;

use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizedString, Normalizer, PostProcessorWrapper, PreTokenizerWrapper,
    SplitDelimiterBehavior, TokenizerImpl,
};
use unicode_general_category::{GeneralCategory, get_general_category};

use crate::error::{Error, Result};
use crate::prompt::Part;

const VOCAB_FILE: &str = "vocab.json";
const MERGES_FILE: &str = "merges.txt";
const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
const END_OF_WORD: &str = "</w>";
/// CLIP's words, in lowercase text: contractions, runs of letters, single digits, runs of anything else but spaces.
const WORDS: &str = r"(?i)'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
/// The published files have 1 MiB.
const MAX_FILE: u64 = 64 << 20;

type Pipeline = TokenizerImpl<BPE, Clean, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// CLIP's tokenizer.
pub struct Tokenizer {
    pipeline: Pipeline,
    start: i64,
    end: i64,
    largest_id: i64,
}

/// A prompt as the text encoder takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Start token, the prompt's tokens, end token, then end tokens up to the length asked for.
    pub ids: Vec<i64>,
    /// The part of the prompt that did not fit, as it was written; `None` when all fitted.
    pub cut: Option<String>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("largest_id", &self.largest_id).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Opens the tokenizer in a folder with `vocab.json` and `merges.txt`.
    ///
    /// # Errors
    /// When a file is missing, larger than 64 MiB or not what it should be, when a merge names a token that the
    /// vocabulary lacks, or when the vocabulary lacks the start or end token.
    pub fn open(folder: &Path) -> Result<Self> {
        let (vocab_path, merges_path) = (folder.join(VOCAB_FILE), folder.join(MERGES_FILE));
        let vocab: HashMap<String, u32> = serde_json::from_str(&read(&vocab_path)?).map_err(|e| {
            Error::input(format!("not a vocabulary, which maps tokens to numbers: {e}")).with_path(&vocab_path)
        })?;
        let special = |token: &str| {
            let id = vocab.get(token).copied().map(i64::from);
            id.ok_or_else(|| Error::input(format!("the vocabulary has no {token} token")).with_path(&vocab_path))
        };
        let (start, end) = (special(START)?, special(END)?);
        let largest_id = vocab.values().copied().max().map_or(0, i64::from);
        let merges = parse_merges(&read(&merges_path)?, &vocab).map_err(|e| e.with_path(&merges_path))?;
        let pipeline = pipeline(vocab, merges).map_err(|e| Error::input(e.to_string()).with_path(folder))?;
        Ok(Self { pipeline, start, end, largest_id })
    }

    /// The largest id that [`Tokenizer::encode`] can give; a text encoder must know more tokens than this.
    pub fn largest_id(&self) -> i64 {
        self.largest_id
    }

    /// The prompt's token ids, exactly `max_positions` of them (77 for CLIP); what does not fit is cut.
    ///
    /// # Errors
    /// When `max_positions` leaves no room for the start and end tokens.
    pub fn encode(&self, prompt: &str, max_positions: usize) -> Result<Tokens> {
        let part = Part { text: prompt.into(), weight: 1.0 };
        Ok(self.encode_parts(&[part], max_positions)?.0)
    }

    /// The token ids of a prompt's parts, one after the other, and the weight of each token: 1 for start and end.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_parts(&self, parts: &[Part], max_positions: usize) -> Result<(Tokens, Vec<f32>)> {
        if max_positions < 2 {
            return Err(Error::input(format!("{max_positions} text positions: at least 2 are needed")));
        }
        let (mut ids, mut weights) = (vec![self.start], vec![1.0]);
        let mut cut: Option<String> = None;
        for Part { text, weight } in parts {
            if let Some(cut) = &mut cut {
                cut.push_str(text);
                continue;
            }
            let encoding =
                self.pipeline.encode(text.as_str(), false).map_err(|e| Error::failure(format!("prompt: {e}")))?;
            let fit = encoding.get_ids().len().min(max_positions - 1 - ids.len());
            ids.extend(encoding.get_ids().iter().take(fit).copied().map(i64::from));
            weights.resize(ids.len(), *weight as f32);
            cut = encoding.get_offsets().get(fit).and_then(|(from, _)| text.get(*from..)).map(String::from);
        }
        ids.resize(max_positions, self.end);
        weights.resize(max_positions, 1.0);
        Ok((Tokens { ids, cut: cut.map(|rest| rest.trim().to_string()) }, weights))
    }
}

/// A tokenizer's text file, unless it is too large to be one.
fn read(path: &Path) -> Result<String> {
    let size = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
    if size > MAX_FILE {
        return Err(Error::input(format!("{size} bytes: at most {MAX_FILE} are read")).with_path(path));
    }
    std::fs::read_to_string(path).map_err(|e| Error::io(path, e))
}

/// The merges in order of rank, one a line, behind a version line.
fn parse_merges(text: &str, vocab: &HashMap<String, u32>) -> Result<Vec<(String, String)>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with("#version"));
    let mut merges = Vec::new();
    for (number, line) in lines {
        let fail = |what: String| Error::input(format!("line {}: {what}", number + 1));
        let Some((left, right)) = line.split_once(' ').filter(|(_, right)| !right.contains(' ')) else {
            return Err(fail(format!("{line:?}: a merge is two tokens with a space between")));
        };
        // Checked here because the encoder's builder relies on it.
        if let Some(token) = [left, right, &format!("{left}{right}")].into_iter().find(|t| !vocab.contains_key(*t)) {
            return Err(fail(format!("the vocabulary has no token {token:?}")));
        }
        merges.push((left.to_string(), right.to_string()));
    }
    Ok(merges)
}

fn pipeline(vocab: HashMap<String, u32>, merges: Vec<(String, String)>) -> tokenizers::Result<Pipeline> {
    let model = BPE::builder()
        .vocab_and_merges(vocab.into_iter().collect::<tokenizers::models::bpe::Vocab>(), merges)
        .unk_token(END.into())
        .end_of_word_suffix(END_OF_WORD.into())
        .build()?;
    let words = Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Removed, true)?;
    let mut pipeline = Pipeline::new(model);
    pipeline.with_normalizer(Some(Clean))?.with_pre_tokenizer(Some(PreTokenizerWrapper::from(Sequence::new(vec![
        words.into(),
        ByteLevel::new(false, true, false).into(),
    ]))));
    // Written out in a prompt they are themselves, in any case.
    pipeline.add_special_tokens([START, END].map(|token| AddedToken::from(token, true).normalized(true)))?;
    Ok(pipeline)
}

/// What `CLIPTokenizer` does before it looks for words: drops control and unassigned characters, sets Chinese
/// characters apart, composes accents (NFC) and lowercases.
struct Clean;

impl Normalizer for Clean {
    fn normalize(&self, text: &mut NormalizedString) -> tokenizers::Result<()> {
        text.filter(|c| !is_dropped(c)).map(|c| if c.is_whitespace() { ' ' } else { c });
        let mut spaced = Vec::new();
        text.for_each(|c| match is_chinese(c) {
            true => spaced.extend([(' ', 0), (c, 1), (' ', 1)]),
            false => spaced.push((c, 0)),
        });
        text.transform(spaced, 0);
        text.nfc();
        // The standard library knows the final sigma, which depends on its neighbours; the characters' number is
        // the same either way.
        let lowercase = text.get().to_lowercase();
        text.lowercase();
        text.transform(lowercase.chars().map(|c| (c, 0)), 0);
        Ok(())
    }
}

fn is_dropped(c: char) -> bool {
    use GeneralCategory::{Control, Format, PrivateUse, Surrogate, Unassigned};
    let invisible = matches!(get_general_category(c), Control | Format | PrivateUse | Surrogate | Unassigned);
    (invisible && !matches!(c, '\t' | '\n' | '\r')) || c == '\u{fffd}'
}

/// The blocks of CJK ideographs, as `CLIPTokenizer` lists them.
fn is_chinese(c: char) -> bool {
    matches!(c,
        '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{2a6df}'
        | '\u{2a700}'..='\u{2b73f}' | '\u{2b740}'..='\u{2b81f}' | '\u{2b820}'..='\u{2ceaf}'
        | '\u{2f800}'..='\u{2fa1f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(vocab: &str, merges: &str) -> Result<Tokenizer> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(VOCAB_FILE), vocab).unwrap();
        std::fs::write(folder.path().join(MERGES_FILE), merges).unwrap();
        Tokenizer::open(folder.path())
    }

    const SMALL: &str = r#"{"a":0,"b":1,"a</w>":2,"b</w>":3,"ab</w>":4,"<|startoftext|>":5,"<|endoftext|>":6}"#;

    #[test]
    fn a_small_vocabulary_is_enough() {
        let tokenizer = open(SMALL, "#version: 0.2\na b</w>\n").unwrap();
        assert_eq!(tokenizer.largest_id(), 6);
        let encode = |prompt: &str| tokenizer.encode(prompt, 6).unwrap();
        assert_eq!(encode("AB a").ids, [5, 4, 2, 6, 6, 6]);
        // A character that the vocabulary lacks becomes the end token.
        assert_eq!(encode("a?b").ids, [5, 2, 6, 3, 6, 6]);
        assert_eq!(encode("").ids, [5, 6, 6, 6, 6, 6]);
        assert_eq!(encode("").cut, None);
    }

    #[test]
    fn what_does_not_fit_is_named_as_it_was_written() {
        let tokenizer = open(SMALL, "#version: 0.2\na b</w>\n").unwrap();
        let cut = |prompt: &str| tokenizer.encode(prompt, 6).unwrap().cut.unwrap();
        assert_eq!(cut("a B a  b É\u{200b} Äb "), "É\u{200b} Äb");
        // An unknown character is as many tokens as it has bytes; it is cut whole.
        assert_eq!(cut("a 猫犬 a"), "犬 a");
        assert_eq!(cut("a b 猫犬 a"), "猫犬 a");
        assert_eq!(cut("a b a <|endoftext|> b<|startoftext|>"), "b<|startoftext|>");
        assert_eq!(tokenizer.encode("a b a b", 6).unwrap().cut, None);
        assert_eq!(tokenizer.encode("a b", 2).unwrap(), Tokens { ids: vec![5, 6], cut: Some("a b".into()) });
        assert!(tokenizer.encode("a", 1).is_err());
    }

    #[test]
    fn parts_are_encoded_one_after_the_other() {
        let tokenizer = open(SMALL, "#version: 0.2\na b</w>\n").unwrap();
        let parts = |parts: &[(&str, f64)], positions| {
            let parts: Vec<Part> =
                parts.iter().map(|(text, weight)| Part { text: text.to_string(), weight: *weight }).collect();
            tokenizer.encode_parts(&parts, positions).unwrap()
        };
        // Words end where parts do.
        let (tokens, weights) = parts(&[("a", 1.0), ("b", 1.5), ("ab", 2.0)], 6);
        assert_eq!((tokens.ids, tokens.cut), (vec![5, 2, 3, 4, 6, 6], None));
        assert_eq!(weights, [1.0, 1.0, 1.5, 2.0, 1.0, 1.0]);
        let (tokens, weights) = parts(&[("a b", 1.5), (" a b", 2.0), (" a", 1.0)], 5);
        assert_eq!((tokens.ids, tokens.cut.as_deref()), (vec![5, 2, 3, 2, 6], Some("b a")));
        assert_eq!(weights, [1.0, 1.5, 1.5, 2.0, 1.0]);
        assert_eq!(parts(&[("a b", 1.0)], 6).0, tokenizer.encode("a b", 6).unwrap());
    }

    #[test]
    fn broken_files_are_named() {
        let error = |vocab, merges| {
            let error = open(vocab, merges).unwrap_err();
            assert!(error.is_input());
            error.to_string()
        };
        assert!(error("[1]", "").contains("vocab.json: not a vocabulary"));
        assert!(error(r#"{"<|startoftext|>":0}"#, "").contains("no <|endoftext|> token"));
        assert!(error(SMALL, "#version: 0.2\na b c").contains("merges.txt: line 2"));
        // The merged token is longer than any in the vocabulary.
        assert!(error(SMALL, "<|startoftext|> <|endoftext|>").contains("no token"));
        let folder = tempfile::tempdir().unwrap();
        assert!(Tokenizer::open(folder.path()).unwrap_err().to_string().contains("no such file"));
        std::fs::File::create(folder.path().join(VOCAB_FILE)).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert!(Tokenizer::open(folder.path()).unwrap_err().to_string().contains("at most"));
    }
}
