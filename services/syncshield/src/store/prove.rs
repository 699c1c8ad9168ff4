//! That a record is in the log, for somebody who trusts its key and nothing else.

use kiki::tlog::portable::PortableProof;

use super::Log;
use crate::error::Error;

impl Log {
    /// The C2SP tlog-proof of a leaf, with the leaf in it, and the key under which it holds.
    ///
    /// # Errors
    /// An index beyond the log, or a writer that failed.
    pub async fn prove(&self, index: u64) -> Result<(String, String), Error> {
        let key = self.inner.public_key.load_full();
        let signed = self.checkpoint(index + 1).await?;
        let hashes = self.inner.tree.read().inclusion_proof(index, signed.size)?;
        let leaf = self.read_until(index, index + 1, 1).await?.pop();
        let (_, leaf) = leaf.ok_or_else(|| Error::Damaged(format!("leaf {index} is not to be found")))?;
        let proof = PortableProof { extra: leaf.to_vec(), index, hashes, checkpoint: signed.note.to_string() };
        Ok((proof.to_string(), key.to_string()))
    }
}
