//! What the backend does with files: an SFTP session inside the sandbox for each call, so that no link in it leads out.

use tokio::io::AsyncRead;

use super::TrueNas;
use crate::backend::retry::retry_lost;
use crate::backend::sftp::{self, LOOK, bounded};
use crate::backend::{FileChange, FileEntry, Result};
use crate::model::{GuestPath, Inspection, InstanceName, Mode, Owner, Query};

impl TrueNas {
    async fn files(&self, name: &InstanceName) -> Result<sftp::Session> {
        let (session, _) = self.enter(name).await?;
        session.files().await
    }

    /// For looking only.
    async fn files_to_look_at(&self, name: &InstanceName) -> Result<sftp::Session> {
        self.look_in(name).await?.files().await
    }

    pub(super) async fn inspect_files(&self, name: &InstanceName, query: &Query) -> Result<Inspection> {
        if query.is_empty() {
            return Ok(Inspection::default());
        }
        let look = || async {
            let session = self.files_to_look_at(name).await?;
            sftp::inspect(&session, query).await
        };
        bounded(LOOK, retry_lost(look)).await
    }

    pub(super) async fn write_files(&self, name: &InstanceName, changes: &[FileChange]) -> Result<Vec<bool>> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let session = self.files(name).await?;
        let result = sftp::change(&session, changes).await;
        session.end().await;
        result
    }

    pub(super) async fn write_from(
        &self,
        name: &InstanceName,
        path: &GuestPath,
        content: &mut (dyn AsyncRead + Send + Unpin),
        mode: Mode,
        owner: Option<Owner>,
    ) -> Result<()> {
        let session = self.files(name).await?;
        let result = sftp::write_from(&session, path, content, mode, owner).await;
        session.end().await;
        result
    }

    pub(super) async fn read_file(
        &self,
        name: &InstanceName,
        path: &GuestPath,
        max_bytes: u64,
    ) -> Result<(Vec<u8>, bool)> {
        let attempt = || async {
            let session = self.files_to_look_at(name).await?;
            sftp::first_bytes(&session, path, max_bytes).await
        };
        retry_lost(attempt).await
    }

    pub(super) async fn list_folder(
        &self,
        name: &InstanceName,
        path: &GuestPath,
        recursive: bool,
    ) -> Result<Vec<FileEntry>> {
        let attempt = || async {
            let session = self.files_to_look_at(name).await?;
            sftp::list_folder(&session, path, recursive).await
        };
        bounded(LOOK, retry_lost(attempt)).await
    }
}
