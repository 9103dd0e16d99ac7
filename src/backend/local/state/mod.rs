//! What is kept on disk, all below one folder that nobody else can enter.
//!
//! ```text
//! state.json              whose ids the layers have; never changes
//! lock                    held while layers gain or lose names
//! lock-images, lock-host  held while an image is unpacked, or this machine looked through
//! locks/NAME              held while a sandbox changes
//! sandboxes/NAME/         record.json, run.json (its process; ending.json once it is being stopped), still (while it is
//!                         held still), ports.json (what forwards its ports), mask (of its image), root and low (mount
//!                         points)
//! layers/ID/up/PART       what a layer changes, one folder for each overlay; ID/work is the kernel's
//! images/KEY/PART         what images bring
//! notes/ENV/KEY           what is kept of environments
//! volumes/ID/data         a volume; ID/volume.json says whose
//! trash/ID                on its way out
//! ```
//!
//! A record names the layers that make a disk: one that is written to, and frozen ones below it. Snapshots and
//! clones name frozen layers, too, so that freezing and cloning are changes of records alone, each by one
//! rename. A layer that no record names is removed.

mod disk;
mod lock;
mod record;
mod store;

pub(super) use disk::{UNPACKED, entries, folder_of, id};
pub(super) use lock::Lock;
pub(super) use record::{Image, Kept, Record};
pub(super) use store::{Store, failed, private, sync, write};
