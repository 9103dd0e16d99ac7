//! From the parser's events to maps, lists and scalars.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span};

use crate::model::{Diagnostic, Place};
use crate::spec::source::Source;
use crate::spec::syntax::{DEPTH_LIMIT, Scalar, Value};

/// What YAML can hold.
#[derive(Debug, Clone)]
pub(super) enum Item {
    /// A scalar.
    Scalar(Value),
    /// A list.
    List(Vec<Item>, Place),
    /// A map, in the text's order, doubled keys included.
    Map(Vec<(Value, Item)>, Place),
}

impl Item {
    pub(super) fn at(&self) -> &Place {
        match self {
            Self::Scalar(value) => &value.at,
            Self::List(_, at) | Self::Map(_, at) => at,
        }
    }

    pub(super) fn description(&self) -> &'static str {
        match self {
            Self::Scalar(value) if value.scalar == Scalar::Null => "nothing",
            Self::Scalar(_) => "a single value",
            Self::List(..) => "a list",
            Self::Map(..) => "a map",
        }
    }

    /// How many items and bytes an alias for this one stands for.
    fn weight(&self) -> usize {
        match self {
            Self::Scalar(value) => 1 + value.text.len() / 64,
            Self::List(items, _) => 1 + items.iter().map(Self::weight).sum::<usize>(),
            Self::Map(entries, _) => {
                1 + entries
                    .iter()
                    .map(|(key, item)| 1 + key.text.len() / 64 + item.weight())
                    .sum::<usize>()
            }
        }
    }
}

/// How many items the aliases of one file may stand for, all together.
const ALIAS_BUDGET: usize = 10_000;

/// How many keys, values, maps and lists one file may have.
const EVENTS: usize = 40_000;

type Problem = Box<Diagnostic>;

struct Reader<'a> {
    source: &'a Source,
    anchors: HashMap<usize, Item>,
    budget: usize,
    anchored: usize,
}

enum Open {
    List(Vec<Item>, usize, Place),
    Map(Vec<(Value, Item)>, Option<Value>, usize, Place),
}

pub(super) fn read(source: &Source) -> Result<Option<Item>, Problem> {
    let options = granit_parser::options! {
        disallow_directives: true,
        emit_comments: false,
        flow_nesting_limit: DEPTH_LIMIT,
        block_nesting_limit: DEPTH_LIMIT,
    };
    let mut reader = Reader {
        source,
        anchors: HashMap::new(),
        budget: ALIAS_BUDGET,
        anchored: ALIAS_BUDGET,
    };
    let mut open: Vec<Open> = Vec::new();
    let mut root: Option<Item> = None;
    let (mut documents, mut events) = (0, 0);
    for event in Parser::new_from_str_with_options(&source.text, options) {
        let (event, span) = event.map_err(|error| reader.failed(&error))?;
        let at = reader.place(&span);
        events += 1;
        if events > EVENTS {
            return Err(Box::new(
                Diagnostic::new(
                    "spec::file-too-large",
                    format!("this file has more than {EVENTS} keys and values, the most that one file may have"),
                    &source.place(at.offset, at.length.min(1)),
                    "one too many",
                )
                .with_help("use `templates` for what sandboxes share, and `include` for the rest"),
            ));
        }
        let finished = match event {
            Event::DocumentStart(..) => {
                documents += 1;
                if documents > 1 {
                    return Err(Box::new(
                        Diagnostic::new(
                            "spec::several-documents",
                            "a spec is one YAML document",
                            &at,
                            "a second one",
                        )
                        .with_help("move it to a file of its own and `include` that"),
                    ));
                }
                None
            }
            Event::Scalar(text, style, anchor, tag) => {
                reject_tag(tag.is_some(), &at)?;
                Some((Item::Scalar(reader.scalar(&text, style, at)), anchor))
            }
            Event::SequenceStart(_, anchor, tag) => {
                reject_tag(tag.is_some(), &at)?;
                reader.reject_depth(open.len(), &at)?;
                open.push(Open::List(Vec::new(), anchor, at));
                None
            }
            Event::MappingStart(_, anchor, tag) => {
                reject_tag(tag.is_some(), &at)?;
                reader.reject_depth(open.len(), &at)?;
                open.push(Open::Map(Vec::new(), None, anchor, at));
                None
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(items, anchor, at)) => Some((Item::List(items, at), anchor)),
                Some(Open::Map(entries, _, anchor, at)) => Some((Item::Map(entries, at), anchor)),
                None => None,
            },
            Event::Alias(anchor) => Some((reader.alias(anchor, &at)?, 0)),
            _ => None,
        };
        let Some((item, anchor)) = finished else { continue };
        if anchor != 0 {
            reader.remember(anchor, &item)?;
        }
        match open.last_mut() {
            None => root = Some(item),
            Some(Open::List(items, ..)) => items.push(item),
            Some(Open::Map(_, key @ None, ..)) => match item {
                Item::Scalar(value) => *key = Some(value),
                other => {
                    let message = format!("a key is a single value, not {}", other.description());
                    return Err(Box::new(
                        Diagnostic::new("spec::syntax", message, other.at(), "not a key")
                            .with_help("write a name, a colon, and then what it holds"),
                    ));
                }
            },
            Some(Open::Map(entries, key, ..)) => {
                if let Some(key) = key.take() {
                    entries.push((key, item));
                }
            }
        }
    }
    Ok(root)
}

fn reject_tag(tagged: bool, at: &Place) -> Result<(), Problem> {
    if tagged {
        return Err(Box::new(
            Diagnostic::new(
                "spec::type-annotation",
                "a YAML tag means nothing here",
                at,
                "has a tag",
            )
            .with_help("remove the word that starts with `!`"),
        ));
    }
    Ok(())
}

impl Reader<'_> {
    fn place(&self, span: &Span) -> Place {
        let range = span.byte_range().unwrap_or(0..0);
        let text = self.source.text.get(range.clone()).unwrap_or_default();
        // A block's span reaches to the next token; what is marked ends with its own last line.
        self.source.place(range.start, text.trim_end().len())
    }

    fn reject_depth(&self, depth: usize, at: &Place) -> Result<(), Problem> {
        if depth < DEPTH_LIMIT {
            return Ok(());
        }
        Err(Box::new(
            Diagnostic::new(
                "spec::nesting-too-deep",
                format!("maps and lists lie more than {DEPTH_LIMIT} deep in each other"),
                &self.source.place(at.offset, 1),
                "one level too many",
            )
            .with_help("a spec needs no more than six levels"),
        ))
    }

    fn scalar(&self, text: &str, style: ScalarStyle, at: Place) -> Value {
        let scalar = match (style, text) {
            (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Scalar::Null,
            (ScalarStyle::Plain, _) => Scalar::Plain,
            _ => Scalar::String,
        };
        Value {
            scalar,
            text: text.to_owned(),
            at,
        }
    }

    /// Keeps what an anchor stands for, within a budget: anchors can lie in each other, and each keeps a copy.
    fn remember(&mut self, anchor: usize, item: &Item) -> Result<(), Problem> {
        let weight = item.weight();
        if weight > self.anchored {
            return Err(self.too_many(item.at()));
        }
        self.anchored -= weight;
        self.anchors.insert(anchor, item.clone());
        Ok(())
    }

    fn too_many(&self, at: &Place) -> Problem {
        let at = self.source.place(at.offset, at.length.min(1));
        Box::new(
            Diagnostic::new(
                "spec::too-many-aliases",
                format!("the anchors and aliases in this file stand for more than {ALIAS_BUDGET} values"),
                &at,
                "one too many",
            )
            .with_help("use `templates` for what sandboxes have in common"),
        )
    }

    fn alias(&mut self, anchor: usize, at: &Place) -> Result<Item, Problem> {
        let Some(item) = self.anchors.get(&anchor) else {
            return Err(Box::new(
                Diagnostic::new(
                    "spec::syntax",
                    "this alias stands for what it is part of",
                    at,
                    "a circle",
                )
                .with_help("write out what is meant"),
            ));
        };
        let weight = item.weight();
        if weight > self.budget {
            return Err(self.too_many(at));
        }
        self.budget -= weight;
        Ok(item.clone())
    }

    fn failed(&self, error: &granit_parser::ScanError) -> Problem {
        let offset = error.marker().byte_offset().unwrap_or(0);
        let length = self
            .source
            .text
            .get(offset..)
            .and_then(|rest| rest.chars().next())
            .map_or(0, char::len_utf8);
        let info = error.info();
        if info.contains("unknown anchor") {
            return Box::new(
                Diagnostic::new(
                    "spec::syntax",
                    "this alias stands for nothing",
                    &self.source.place(offset, length),
                    "no such anchor before this",
                )
                .with_help("give what it stands for a name with `&`, before this; or use `templates`"),
            );
        }
        let diagnostic = Diagnostic::new("spec::syntax", info, &self.source.place(offset, length), "here");
        let line = self
            .source
            .text
            .get(..offset)
            .unwrap_or_default()
            .rsplit('\n')
            .next()
            .unwrap_or_default();
        Box::new(diagnostic.with_help(if line.contains('\t') {
            "YAML is indented by spaces, never by tabs"
        } else {
            "look at the indentation, the quotes and the brackets before this place"
        }))
    }
}
