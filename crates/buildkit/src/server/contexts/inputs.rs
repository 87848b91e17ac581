// SPDX-License-Identifier: Apache-2.0
//! Contexts and Dockerfiles that are what other builds have made.

use std::path::PathBuf;

use polyarch_build::request::{Context, DockerfileSource, Output};
use polyarch_build::{BuildError, Evaluated};

use super::{CONTEXT, Reader};
use crate::caller::KeptDirectory;
use crate::server::results::ResultTree;

impl Reader<'_> {
    /// Takes the context, the Dockerfile or both from what other builds have made.
    pub(super) async fn of_inputs(
        &self,
        file_name: &str,
        directories: &mut Vec<KeptDirectory>,
    ) -> Result<(Context, DockerfileSource), BuildError> {
        let dockerfile = match self.inputs.get(self.dockerfile_name()) {
            Some(tree) => self.input_dockerfile(tree, file_name).await?,
            None => {
                let (dockerfile, kept) = self.local_dockerfile(file_name).await?;
                directories.push(kept);
                dockerfile
            }
        };
        let context = match self.inputs.get(CONTEXT) {
            Some(tree) => Context::Directory(self.input_directory(tree).await?),
            // A client need not offer what the Dockerfile doesn't read.
            None => Context::Distant(self.directory(CONTEXT, "internal")),
        };
        Ok((context, DockerfileSource::File(dockerfile)))
    }

    /// Reads a Dockerfile of a tree that another build has made.
    async fn input_dockerfile(&self, tree: &ResultTree, file_name: &str) -> Result<PathBuf, BuildError> {
        let (evaluated, progress) = (&tree.evaluation.evaluated, self.build.progress());
        let root = self.build.services.open_evaluated(evaluated, tree.platform, &progress).await?;
        self.keep_dockerfile(&root, file_name)
    }

    /// Writes the files of a tree that another build has made into a directory of ours.
    async fn input_directory(&self, tree: &ResultTree) -> Result<PathBuf, BuildError> {
        let path = self.scratch.path().join("context");
        let evaluated = Evaluated::join([(&tree.evaluation.evaluated, tree.platform)]);
        let mut request = tree.evaluation.request.clone();
        request.platforms = evaluated.platforms().cloned().collect();
        request.outputs = vec![Output::Local { destination: path.clone(), platform_split: Some(false) }];
        request.attestations = Default::default();
        let (services, progress) = (&self.build.services, self.build.progress());
        services.export_evaluated(&request, &evaluated, &progress, &self.build.cancel).await?;
        Ok(path)
    }
}
