//! What is kept of an environment itself.

use futures_util::future::join_all;
use sbx_apply::backend::ErrorKind;
use sbx_apply::model::{Capability, Note, NoteKey};

use super::fixture::{Fixture, fails};

const LOCK: NoteKey = NoteKey::Lock;

fn note(text: &str) -> Note {
    Note::new(text).expect("a note")
}

async fn read(f: &Fixture) -> Option<Note> {
    f.backend.note(&f.environment(), LOCK).await.expect("reads a note")
}

async fn create(f: &Fixture, text: &str) -> Note {
    let note = note(text);
    let made = f.backend.create_note(&f.environment(), LOCK, &note).await;
    made.expect("makes a note");
    note
}

pub(crate) async fn a_note_is_made_once(f: &Fixture) {
    assert_eq!(read(f).await, None);
    let first = create(f, "1").await;
    assert_eq!(read(f).await, Some(first.clone()));
    for again in [&first, &note("2")] {
        let answer = f.backend.create_note(&f.environment(), LOCK, again).await;
        fails(answer, ErrorKind::AlreadyExists);
    }
    assert_eq!(read(f).await, Some(first));
}

pub(crate) async fn a_note_is_replaced_unless_it_has_changed(f: &Fixture) {
    let environment = f.environment();
    let replace = async |old: &Note, new: &Note| f.backend.replace_note(&environment, LOCK, old, new).await;
    let [first, second, third] = ["1", "2", "3"].map(note);
    fails(replace(&first, &second).await, ErrorKind::NotFound);
    create(f, "1").await;
    replace(&first, &second).await.expect("replaces");
    assert_eq!(read(f).await, Some(second.clone()));
    for (old, new) in [(&first, &third), (&first, &second), (&third, &third)] {
        fails(replace(old, new).await, ErrorKind::Conflict);
    }
    assert_eq!(read(f).await, Some(second));
}

pub(crate) async fn a_note_is_taken_over_unless_it_has_changed(f: &Fixture) {
    let environment = f.environment();
    let take = async |old: &Note, new: &Note| f.backend.take_over_note(&environment, LOCK, old, new).await;
    let [first, second, third] = ["1", "2", "3"].map(note);
    fails(take(&first, &second).await, ErrorKind::NotFound);
    create(f, "1").await;
    take(&first, &second).await.expect("takes over");
    assert_eq!(read(f).await, Some(second.clone()));
    for (old, new) in [(&first, &third), (&first, &second), (&third, &third)] {
        fails(take(old, new).await, ErrorKind::Conflict);
    }
    assert_eq!(read(f).await, Some(second.clone()));
    // And over again, to a text that stood there before.
    take(&second, &first).await.expect("takes over");
    take(&first, &second).await.expect("takes over");
    assert_eq!(read(f).await, Some(second));
}

pub(crate) async fn only_the_note_that_was_named_is_deleted(f: &Fixture) {
    let environment = f.environment();
    let delete = async |old: &Note| f.backend.delete_note(&environment, LOCK, old).await;
    fails(delete(&note("1")).await, ErrorKind::NotFound);
    let first = create(f, "1").await;
    fails(delete(&note("2")).await, ErrorKind::Conflict);
    assert_eq!(read(f).await, Some(first.clone()));
    delete(&first).await.expect("deletes");
    assert_eq!(read(f).await, None);
    create(f, "2").await;
}

pub(crate) async fn notes_have_nothing_to_do_with_each_other(f: &Fixture) {
    let (one, other) = (f.environment(), f.other_environment());
    let first = create(f, "1").await;
    for (environment, key) in [(&one, NoteKey::SecretKey), (&other, LOCK)] {
        assert_eq!(f.backend.note(environment, key).await.expect("reads"), None);
        let made = f.backend.create_note(environment, key, &note("2")).await;
        made.expect("makes a note");
    }
    let second = note("3");
    let taken = f.backend.take_over_note(&one, LOCK, &first, &second).await;
    taken.expect("takes over");
    let deleted = f.backend.delete_note(&one, LOCK, &second).await;
    deleted.expect("deletes");
    for (environment, key) in [(&one, NoteKey::SecretKey), (&other, LOCK)] {
        assert_eq!(f.backend.note(environment, key).await.expect("reads"), Some(note("2")));
    }
}

pub(crate) async fn notes_are_deleted_with_their_environment(f: &Fixture) {
    let (one, other) = (f.environment(), f.other_environment());
    f.backend.delete_notes(&one).await.expect("there are none");
    create(f, "1").await;
    for (environment, key) in [(&one, NoteKey::SecretKey), (&other, LOCK)] {
        let made = f.backend.create_note(environment, key, &note("2")).await;
        made.expect("makes a note");
    }
    // Of every environment, where something is asked about all of them.
    let mounts = f.backend.capabilities().can(Capability::Mounts);
    let all = f.backend.notes(LOCK).await.expect("reads");
    let of = |environment| all.get(environment).map(Note::as_str);
    let there = if mounts || !all.is_empty() {
        (Some("1"), Some("2"))
    } else {
        (None, None)
    };
    assert_eq!((of(&one), of(&other)), there);
    f.backend.delete_notes(&one).await.expect("deletes");
    assert_eq!(read(f).await, None);
    assert_eq!(f.backend.note(&one, NoteKey::SecretKey).await.expect("reads"), None);
    assert_eq!(f.backend.note(&other, LOCK).await.expect("reads"), Some(note("2")));
}

pub(crate) async fn texts_come_back_as_they_were(f: &Fixture) {
    let environment = f.environment();
    let mut old = create(f, r#"{"a":"b\\n","<&>":["c", 1]}"#).await;
    assert_eq!(read(f).await, Some(old.clone()));
    for text in [
        "Grüße, \u{2028} 世界 \u{1f980} 'quoted' \"twice\" ${x} %s",
        "  in and out  ",
        "-",
        "0",
        &"x".repeat(Note::LONGEST),
        &"\u{1f980}".repeat(Note::LONGEST / 4),
    ] {
        let new = note(text);
        // What came back is what stands there.
        let replaced = f.backend.replace_note(&environment, LOCK, &old, &new).await;
        replaced.expect("replaces");
        assert_eq!(read(f).await, Some(new.clone()), "{text}");
        old = new;
    }
    if f.backend.capabilities().can(Capability::Mounts) {
        let large = note(&"\u{1f980}".repeat(Note::LARGEST / 4));
        let replaced = f.backend.replace_note(&environment, LOCK, &old, &large).await;
        replaced.expect("replaces");
        assert_eq!(read(f).await, Some(large));
    }
    for bad in ["", "a\nb", "\u{1b}[2J", &"x".repeat(Note::LARGEST + 1)] {
        assert_eq!(Note::new(bad), None);
    }
}

/// Has many do the same, each with a note of its own, and asserts that one succeeds and that its note stands there.
async fn race(f: &Fixture, act: impl AsyncFn(&Note) -> sbx_apply::backend::Result<()>) -> Note {
    let notes: Vec<_> = (0..6).map(|index| note(&format!("o{index}"))).collect();
    let done = join_all(notes.iter().map(|note| act(note))).await;
    let winners: Vec<_> = notes.iter().zip(&done).filter(|(_, done)| done.is_ok()).collect();
    let [(winner, _)] = winners[..] else {
        panic!("{} succeeded: {done:?}", winners.len());
    };
    assert_eq!(read(f).await.as_ref(), Some(winner));
    winner.clone()
}

pub(crate) async fn of_many_makers_at_once_one_succeeds(f: &Fixture) {
    let environment = f.environment();
    for _ in 0..5 {
        let winner = race(f, async |note| f.backend.create_note(&environment, LOCK, note).await).await;
        let deleted = f.backend.delete_note(&environment, LOCK, &winner).await;
        deleted.expect("deletes");
    }
}

pub(crate) async fn of_many_takers_at_once_one_succeeds(f: &Fixture) {
    let environment = f.environment();
    for round in 0..5 {
        let old = create(f, &format!("old{round}")).await;
        let take = async |note: &Note| f.backend.take_over_note(&environment, LOCK, &old, note).await;
        let winner = race(f, take).await;
        let deleted = f.backend.delete_note(&environment, LOCK, &winner).await;
        deleted.expect("deletes");
    }
}
