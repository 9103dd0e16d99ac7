//! Pools, datasets and snapshots: a tree in memory. The disks of containers in it are folders of the daemon's pool,
//! and are copied, put back and removed as the tree is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::Dialect;
use super::disks;
use super::jobs::now;

/// The pools. The first is the one that containers are in unless told otherwise.
pub(super) const POOLS: [&str; 2] = ["tank", "fast"];

/// All datasets and snapshots, by name.
#[derive(Debug)]
pub(super) struct Tree {
    dialect: Dialect,
    pub(super) datasets: BTreeMap<String, Dataset>,
    pub(super) snapshots: BTreeMap<String, Snapshot>,
    txg: u64,
}

/// One dataset.
#[derive(Debug, Clone)]
pub(super) struct Dataset {
    /// Seconds since 1970.
    pub(super) created: u64,
    /// The same moment, for what lasts no second.
    pub(super) made: Instant,
    /// Properties with a colon in their name, those of its own.
    pub(super) user: BTreeMap<String, String>,
    /// The snapshot that it is a clone of.
    pub(super) origin: Option<String>,
    /// Its disk, where it has one.
    pub(super) disk: Option<PathBuf>,
}

impl Default for Dataset {
    fn default() -> Self {
        Self {
            created: now() / 1000,
            made: Instant::now(),
            user: BTreeMap::new(),
            origin: None,
            disk: None,
        }
    }
}

/// One snapshot.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    /// Seconds since 1970.
    pub(super) created: u64,
    /// Counts changes of the pool.
    pub(super) txg: u64,
    pub(super) user: BTreeMap<String, String>,
    /// Whether it goes once no clone is left.
    deferred: bool,
    disk: Option<PathBuf>,
}

/// What ZFS has to say against something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no such dataset or snapshot.
    Missing(String),
    /// There is one already.
    Exists(String),
    /// The name is none.
    Name(String),
    /// There are clones of it.
    Clones(Vec<String>),
    /// There are children or snapshots of it.
    Children(Vec<String>),
    /// There are newer snapshots.
    Newer(Vec<String>),
    /// Its disk could not be changed.
    Disk(String),
}

type Done<T = ()> = Result<T, Refused>;

impl Tree {
    /// What a machine has that was set up and not used yet.
    pub(super) fn new(dialect: Dialect) -> Self {
        let mut tree = Self {
            dialect,
            datasets: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            txg: 1000,
        };
        for pool in POOLS {
            let hidden = tree.hidden(pool);
            for name in [
                pool.to_owned(),
                hidden.clone(),
                format!("{hidden}/containers"),
                format!("{hidden}/images"),
            ] {
                tree.put(&name, Dataset::default());
            }
        }
        tree
    }

    /// The dataset of a pool that the product keeps containers below.
    fn hidden(&self, pool: &str) -> String {
        match self.dialect {
            Dialect::V26 => format!("{pool}/.truenas_containers"),
            _ => format!("{pool}/.ix-virt"),
        }
    }

    fn put(&mut self, name: &str, dataset: Dataset) {
        self.txg += 1;
        self.datasets.insert(name.to_owned(), dataset);
    }

    /// The dataset that a container of a pool is in.
    pub(super) fn of_container(&self, pool: &str, name: &str) -> String {
        format!("{}/containers/{name}", self.hidden(pool))
    }

    /// Where a dataset is mounted, if it is: those of Incus are mounted by Incus.
    pub(super) fn mountpoint(&self, name: &str) -> Option<String> {
        let (_, below) = name.split_once('/').unwrap_or((name, ""));
        if below.starts_with(".ix-virt") {
            return None;
        }
        match below.strip_prefix(".truenas_containers") {
            Some(rest) => {
                let pool = name.split('/').next().unwrap_or_default();
                Some(format!("/mnt/.truenas_containers/{pool}{rest}"))
            }
            None => Some(format!("/mnt/{name}")),
        }
    }

    /// Puts in the dataset of a new container.
    pub(super) fn container_made(&mut self, pool: &str, name: &str, disk: Option<PathBuf>) {
        let dataset = self.of_container(pool, name);
        let made = Dataset {
            disk,
            ..Dataset::default()
        };
        self.put(&dataset, made);
    }

    /// Takes out the dataset of a container that Incus has deleted. One whose snapshots others were cloned from
    /// stays under another name; Incus moves it out of the way.
    pub(super) async fn container_deleted(&mut self, name: &str) -> Done {
        for pool in POOLS {
            let dataset = self.of_container(pool, name);
            if !self.datasets.contains_key(&dataset) {
                continue;
            }
            let cloned = self
                .snapshots_of(&dataset)
                .iter()
                .any(|snapshot| !self.clones_of(snapshot).is_empty());
            if cloned {
                self.txg += 1;
                let away = format!("{}/deleted/containers/{}", self.hidden(pool), self.txg);
                // Its own disk is gone with the container.
                self.datasets
                    .entry(dataset.clone())
                    .and_modify(|dataset| dataset.disk = None);
                self.rename(&dataset, &away)?;
            } else {
                self.datasets
                    .entry(dataset.clone())
                    .and_modify(|dataset| dataset.disk = None);
                self.destroy(&dataset, true).await?;
            }
        }
        Ok(())
    }

    /// The snapshots of a dataset, oldest first.
    pub(super) fn snapshots_of(&self, dataset: &str) -> Vec<String> {
        let prefix = format!("{dataset}@");
        let own = self.snapshots.iter().filter(|(name, _)| name.starts_with(&prefix));
        let mut own: Vec<_> = own.map(|(name, snapshot)| (snapshot.txg, name.clone())).collect();
        own.sort_unstable();
        own.into_iter().map(|(_, name)| name).collect()
    }

    /// The datasets that are clones of a snapshot.
    pub(super) fn clones_of(&self, snapshot: &str) -> Vec<String> {
        let clones = self
            .datasets
            .iter()
            .filter(|(_, dataset)| dataset.origin.as_deref() == Some(snapshot));
        clones.map(|(name, _)| name.clone()).collect()
    }

    /// The datasets below one.
    pub(super) fn below(&self, dataset: &str) -> Vec<String> {
        let prefix = format!("{dataset}/");
        self.datasets
            .keys()
            .filter(|name| name.starts_with(&prefix))
            .cloned()
            .collect()
    }

    /// User properties as one that inherits them sees them: each value, and where it comes from when not from here.
    pub(super) fn user_properties(&self, name: &str) -> BTreeMap<String, (String, Option<String>)> {
        let dataset = name.split('@').next().unwrap_or(name);
        let mut found = BTreeMap::new();
        let mut end = 0;
        for part in dataset.split('/') {
            end += part.len();
            let ancestor = &dataset[..end];
            end += 1;
            for (key, value) in self
                .datasets
                .get(ancestor)
                .into_iter()
                .flat_map(|dataset| &dataset.user)
            {
                let source = (ancestor != name).then(|| ancestor.to_owned());
                found.insert(key.clone(), (value.clone(), source));
            }
        }
        for (key, value) in self.snapshots.get(name).into_iter().flat_map(|snapshot| &snapshot.user) {
            found.insert(key.clone(), (value.clone(), None));
        }
        found
    }

    /// Makes a dataset without a disk.
    pub(super) fn make(&mut self, name: &str, user: BTreeMap<String, String>) -> Done {
        if self.datasets.contains_key(name) {
            return Err(Refused::Exists(name.to_owned()));
        }
        let parent = name.rsplit_once('/').map(|(parent, _)| parent).unwrap_or_default();
        if !self.datasets.contains_key(parent) {
            return Err(Refused::Missing(parent.to_owned()));
        }
        let dataset = Dataset {
            user,
            ..Dataset::default()
        };
        self.put(name, dataset);
        Ok(())
    }

    /// Takes a snapshot of a dataset.
    pub(super) async fn snapshot(
        &mut self,
        dataset: &str,
        label: &str,
        user: BTreeMap<String, String>,
        folder: Option<&Path>,
    ) -> Done {
        let name = format!("{dataset}@{label}");
        if !good_name(label) || label.contains('/') {
            return Err(Refused::Name(name));
        }
        let Some(found) = self.datasets.get(dataset) else {
            return Err(Refused::Missing(dataset.to_owned()));
        };
        if self.snapshots.contains_key(&name) {
            return Err(Refused::Exists(name));
        }
        self.txg += 1;
        let disk = match (&found.disk, folder) {
            (Some(from), Some(folder)) => {
                let to = folder.join(self.txg.to_string());
                disks::copy(from, &to).await.map_err(Refused::Disk)?;
                Some(to)
            }
            _ => None,
        };
        let snapshot = Snapshot {
            created: now() / 1000,
            txg: self.txg,
            user,
            deferred: false,
            disk,
        };
        self.snapshots.insert(name, snapshot);
        Ok(())
    }

    /// Deletes a snapshot. One with clones is refused, or, deferred, goes with the last of them.
    pub(super) async fn delete_snapshot(&mut self, name: &str, defer: bool) -> Done {
        let clones = self.clones_of(name);
        let Some(snapshot) = self.snapshots.get_mut(name) else {
            return Err(Refused::Missing(name.to_owned()));
        };
        if !clones.is_empty() {
            if defer {
                snapshot.deferred = true;
                return Ok(());
            }
            return Err(Refused::Clones(clones));
        }
        if let Some(disk) = self.snapshots.remove(name).and_then(|snapshot| snapshot.disk) {
            disks::remove(&disk).await.map_err(Refused::Disk)?;
        }
        Ok(())
    }

    /// Clones a snapshot to a new dataset, whose disk is to be at a place.
    pub(super) async fn clone(&mut self, snapshot: &str, to: &str, place: Option<PathBuf>) -> Done {
        let Some(from) = self.snapshots.get(snapshot) else {
            return Err(Refused::Missing(snapshot.to_owned()));
        };
        if self.datasets.contains_key(to) {
            return Err(Refused::Exists(to.to_owned()));
        }
        let parent = to.rsplit_once('/').map(|(parent, _)| parent).unwrap_or_default();
        if !self.datasets.contains_key(parent) || parent.split('/').next() != snapshot.split('/').next() {
            return Err(Refused::Missing(parent.to_owned()));
        }
        if let (Some(from), Some(place)) = (&from.disk, &place) {
            disks::copy(from, place).await.map_err(Refused::Disk)?;
        }
        let dataset = Dataset {
            origin: Some(snapshot.to_owned()),
            disk: place,
            ..Dataset::default()
        };
        self.put(to, dataset);
        Ok(())
    }

    /// Puts a dataset back to a snapshot. Newer ones are refused, or deleted.
    pub(super) async fn roll_back(&mut self, name: &str, recursive: bool, clones: bool) -> Done {
        let dataset = name.split('@').next().unwrap_or_default().to_owned();
        let Some(snapshot) = self.snapshots.get(name).cloned() else {
            return Err(Refused::Missing(name.to_owned()));
        };
        let all = self.snapshots_of(&dataset);
        let newer: Vec<_> = all.into_iter().skip_while(|other| other != name).skip(1).collect();
        if !newer.is_empty() && !recursive && !clones {
            return Err(Refused::Newer(newer));
        }
        let cloned: Vec<_> = newer.iter().flat_map(|snapshot| self.clones_of(snapshot)).collect();
        if !cloned.is_empty() && !clones {
            return Err(Refused::Clones(cloned));
        }
        for clone in cloned {
            Box::pin(self.destroy(&clone, true)).await?;
        }
        for snapshot in newer.iter().rev() {
            self.delete_snapshot(snapshot, false).await?;
        }
        self.txg += 1;
        let disk = self.datasets.get(&dataset).and_then(|dataset| dataset.disk.clone());
        if let (Some(from), Some(disk)) = (&snapshot.disk, &disk) {
            disks::remove(disk).await.map_err(Refused::Disk)?;
            disks::copy(from, disk).await.map_err(Refused::Disk)?;
        }
        Ok(())
    }

    /// Deletes a dataset. Children and snapshots are refused, or deleted too; clones of these are refused.
    pub(super) async fn destroy(&mut self, name: &str, recursive: bool) -> Done {
        if !self.datasets.contains_key(name) {
            return Err(Refused::Missing(name.to_owned()));
        }
        let mut all = self.below(name);
        all.push(name.to_owned());
        let snapshots: Vec<_> = all.iter().flat_map(|dataset| self.snapshots_of(dataset)).collect();
        if !recursive && (all.len() > 1 || !snapshots.is_empty()) {
            let mut children = self.below(name);
            children.extend(snapshots);
            return Err(Refused::Children(children));
        }
        let clones = snapshots.iter().flat_map(|snapshot| self.clones_of(snapshot));
        let clones: Vec<_> = clones.filter(|clone| !all.contains(clone)).collect();
        if !clones.is_empty() {
            return Err(Refused::Clones(clones));
        }
        let mut disks_left = Vec::new();
        let mut origins = Vec::new();
        for snapshot in &snapshots {
            disks_left.extend(self.snapshots.remove(snapshot).and_then(|snapshot| snapshot.disk));
        }
        for dataset in all.iter().rev() {
            let dataset = self.datasets.remove(dataset).unwrap_or_default();
            disks_left.extend(dataset.disk);
            origins.extend(dataset.origin);
        }
        self.txg += 1;
        for disk in disks_left {
            if disk.exists() {
                disks::remove(&disk).await.map_err(Refused::Disk)?;
            }
        }
        for origin in origins {
            self.forget_origin(&origin).await?;
        }
        Ok(())
    }

    /// What waits for its last clone to go: deferred snapshots, and what Incus has moved out of the way.
    async fn forget_origin(&mut self, origin: &str) -> Done {
        if !self.clones_of(origin).is_empty() {
            return Ok(());
        }
        let deferred = self.snapshots.get(origin).is_some_and(|snapshot| snapshot.deferred);
        let dataset = origin.split('@').next().unwrap_or_default().to_owned();
        if deferred {
            self.delete_snapshot(origin, false).await?;
        }
        let away = dataset.contains("/.ix-virt/deleted/");
        let needed = self
            .snapshots_of(&dataset)
            .iter()
            .any(|snapshot| !self.clones_of(snapshot).is_empty());
        if away && !needed {
            Box::pin(self.destroy(&dataset, true)).await?;
        }
        Ok(())
    }

    /// Gives a snapshot another name. Its clones stay its clones.
    pub(super) fn rename_snapshot(&mut self, from: &str, to: &str) -> Done {
        let label = to.split('@').nth(1).unwrap_or_default();
        if !good_name(label) || label.contains('/') {
            return Err(Refused::Name(to.to_owned()));
        }
        if self.snapshots.contains_key(to) {
            return Err(Refused::Exists(to.to_owned()));
        }
        let Some(snapshot) = self.snapshots.remove(from) else {
            return Err(Refused::Missing(from.to_owned()));
        };
        self.snapshots.insert(to.to_owned(), snapshot);
        for dataset in self.datasets.values_mut() {
            if dataset.origin.as_deref() == Some(from) {
                dataset.origin = Some(to.to_owned());
            }
        }
        Ok(())
    }

    /// Gives a dataset and all below it another name.
    pub(super) fn rename(&mut self, from: &str, to: &str) -> Done {
        if !self.datasets.contains_key(from) {
            return Err(Refused::Missing(from.to_owned()));
        }
        if self.datasets.contains_key(to) {
            return Err(Refused::Exists(to.to_owned()));
        }
        self.txg += 1;
        let moved = |name: &str| {
            let rest = name.strip_prefix(from)?;
            (rest.is_empty() || rest.starts_with(['/', '@'])).then(|| format!("{to}{rest}"))
        };
        let datasets = std::mem::take(&mut self.datasets).into_iter();
        self.datasets = datasets
            .map(|(name, mut dataset)| {
                if let Some(origin) = dataset.origin.as_deref().and_then(moved) {
                    dataset.origin = Some(origin);
                }
                (moved(&name).unwrap_or(name), dataset)
            })
            .collect();
        let snapshots = std::mem::take(&mut self.snapshots).into_iter();
        self.snapshots = snapshots
            .map(|(name, snapshot)| (moved(&name).unwrap_or(name), snapshot))
            .collect();
        Ok(())
    }

    /// Turns a clone and what it is a clone of around: the clone's source then depends on it.
    pub(super) fn promote(&mut self, name: &str) -> Done {
        let Some(origin) = self.datasets.get(name).and_then(|dataset| dataset.origin.clone()) else {
            return Err(Refused::Missing(name.to_owned()));
        };
        let source = origin.split('@').next().unwrap_or_default().to_owned();
        let label = origin.split('@').nth(1).unwrap_or_default().to_owned();
        let txg = self.snapshots.get(&origin).map_or(0, |snapshot| snapshot.txg);
        let older = self.snapshots_of(&source);
        let older: Vec<_> = older
            .into_iter()
            .filter(|other| self.snapshots[other].txg <= txg)
            .collect();
        let above = self.datasets.get(&source).and_then(|dataset| dataset.origin.clone());
        for old in older {
            let moved = format!("{name}@{}", old.split('@').nth(1).unwrap_or_default());
            if self.snapshots.contains_key(&moved) {
                return Err(Refused::Exists(moved));
            }
            let snapshot = self.snapshots.remove(&old).expect("was just listed");
            self.snapshots.insert(moved.clone(), snapshot);
            for dataset in self
                .datasets
                .values_mut()
                .filter(|dataset| dataset.origin.as_deref() == Some(&old))
            {
                dataset.origin = Some(moved.clone());
            }
        }
        self.datasets
            .entry(name.to_owned())
            .and_modify(|dataset| dataset.origin = above);
        let origin = Some(format!("{name}@{label}"));
        self.datasets
            .entry(source)
            .and_modify(|dataset| dataset.origin = origin);
        Ok(())
    }
}

/// Whether ZFS takes it as a name of a dataset or of a snapshot.
pub(super) fn good_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.: /".contains(c);
    !name.is_empty() && name.chars().all(good) && !name.split('/').any(str::is_empty)
}
