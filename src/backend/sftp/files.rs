//! What backends do with files on an open session.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::time::timeout;

use super::change::{Source, make_parent, write};
use super::inspect::{entry, walk};
use super::packet::Kind;
use super::read::read_blocks;
use super::session::Session;
use crate::backend::{Error, ErrorKind, FileEntry, Result};
use crate::model::{GuestPath, Mode, Owner};

/// How long looking at files may take, whatever a guest does to draw it out: minutes mean that it does.
pub(in crate::backend) const LOOK: Duration = Duration::from_secs(120);

/// Lets a look at files take so long and no longer.
pub(in crate::backend) async fn bounded<T>(
    patience: Duration,
    look: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    timeout(patience, look).await.unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::Timeout,
            format!("it took longer than {} s", patience.as_secs()),
        ))
    })
}

/// Writes a file from a stream, and makes its missing parents.
pub(in crate::backend) async fn write_from(
    session: &Session,
    path: &GuestPath,
    content: &mut (dyn AsyncRead + Send + Unpin),
    mode: Mode,
    owner: Option<Owner>,
) -> Result<()> {
    make_parent(session, path, owner).await?;
    let source = Source::Stream(Box::new(content), None);
    write(session, path, source, mode, owner).await.map(drop)
}

/// What lies in a folder. Links to it are followed, inside; those in it are not.
pub(in crate::backend) async fn list_folder(
    session: &Session,
    path: &GuestPath,
    recursive: bool,
) -> Result<Vec<FileEntry>> {
    let found = session.stat(path.as_str().as_bytes()).await;
    let found = found.map_err(|failure| failure.within("cannot look at it"))?;
    match found.map(|found| found.kind()) {
        None => return Err(Error::not_found("there is no such folder")),
        Some(Kind::Directory) => {}
        Some(_) => return Err(Error::new(ErrorKind::Invalid, "it is no folder")),
    }
    let entries = walk(session, path, recursive, &BTreeSet::new()).await?;
    Ok(entries
        .into_iter()
        .map(|(path, attributes)| entry(&path, attributes))
        .collect())
}

/// The first bytes of a file, and whether there are more. Links to it are followed, inside.
pub(in crate::backend) async fn first_bytes(
    session: &Session,
    path: &GuestPath,
    max_bytes: u64,
) -> Result<(Vec<u8>, bool)> {
    let bytes = path.as_str().as_bytes();
    let found = session
        .stat(bytes)
        .await
        .map_err(|failure| failure.within("cannot look at it"))?;
    let found = found.ok_or_else(|| Error::not_found("there is no such file"))?;
    if found.kind() != Kind::File {
        return Err(Error::new(ErrorKind::Invalid, "it is no regular file"));
    }
    let limit = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    let mut content = Vec::new();
    let mut more = false;
    let wanted = found.size.min(max_bytes);
    read_blocks(session, bytes, wanted, |block| {
        let room = limit - content.len();
        more = block.len() > room;
        content.extend_from_slice(&block[..block.len().min(room)]);
        !more
    })
    .await
    .map_err(|failure| failure.within("cannot read it"))?;
    Ok((content, more))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_look_that_is_drawn_out_ends() {
        let endless = std::future::pending::<Result<()>>();
        assert_eq!(
            bounded(Duration::from_millis(20), endless)
                .await
                .expect_err("late")
                .kind(),
            ErrorKind::Timeout
        );
    }
}
