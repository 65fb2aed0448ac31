//! Builds: an image by a Dockerfile and its context, or from Debian packages.

use std::fmt;
use std::future::IntoFuture;
use std::path::{Path, PathBuf};

use banger_proto::v1;
use banger_registry_auth::{AuthFiles, Login, registry_and_repository};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use uuid::Uuid;
use v1::build_image_request::Message;
use v1::build_image_response::Message as Told;
use v1::build_image_start::Recipe;

use crate::bases::bases;
use crate::context::BuildContext;
use crate::error::{Error, Result};
use crate::export::{Export, ExportMessage, ExportPart};
use crate::image::{Images, basic_auth};
use crate::operation::{IntoStep, Progress, Step};
use crate::upload::{Source, send};
use crate::vm::NetworkMode;

/// What is called with a build's output.
struct Log(Option<Callback>);

/// What a caller gave to be told.
type Callback = Box<dyn FnMut(&v1::BuildLog) + Send>;

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Log" } else { "no log" })
    }
}

/// A build, made when it is awaited. It is not repeated when the connection breaks, and goes on in the
/// daemon when this is dropped after its upload.
#[derive(Debug)]
#[must_use = "a build is made when it is awaited"]
pub struct BuildImage {
    images: Images,
    start: v1::BuildImageStart,
    recipe: Input,
    auth_files: Option<AuthFiles>,
    progress: Progress,
    log: Log,
}

#[derive(Debug)]
enum Input {
    Dockerfile {
        context: Source,
        /// The file that is read; absent where the text was given.
        file: Option<PathBuf>,
        recipe: v1::DockerfileRecipe,
    },
    Debian(v1::DebianRecipe),
}

impl Images {
    /// Builds `reference` by the `Dockerfile` in the directory `context`, leaving out what its
    /// `.dockerignore` says. A file that is no directory is sent as a tar of the context.
    pub fn build(&self, reference: impl Into<String>, context: impl Into<Source>) -> BuildImage {
        let context = context.into();
        let file = context.directory().map(|dir| dir.join("Dockerfile"));
        let recipe = v1::DockerfileRecipe::default();
        self.build_by(
            reference,
            Input::Dockerfile {
                context,
                file,
                recipe,
            },
        )
    }

    /// Makes a root filesystem of a Debian suite's packages.
    pub fn build_debian(
        &self,
        reference: impl Into<String>,
        suite: impl Into<String>,
    ) -> BuildImage {
        let recipe = v1::DebianRecipe {
            suite: suite.into(),
            ..v1::DebianRecipe::default()
        };
        self.build_by(reference, Input::Debian(recipe))
    }

    /// Exports an image as a tar of an OCI image layout.
    ///
    /// # Errors
    /// When there is none, it came without layers, or the daemon cannot be asked.
    pub async fn export_oci_layout(&self, image: impl Into<String>) -> Result<Export> {
        const CALL: &str = "ExportOciLayout";
        let request = v1::ExportOciLayoutRequest {
            image: image.into(),
        };
        let answer = self.rpc().export_oci_layout(request).await;
        Export::begin(self.watched(answer, CALL)?, CALL).await
    }

    fn build_by(&self, reference: impl Into<String>, recipe: Input) -> BuildImage {
        BuildImage {
            images: self.clone(),
            start: v1::BuildImageStart {
                reference: reference.into(),
                request_id: Uuid::new_v4().to_string(),
                ..v1::BuildImageStart::default()
            },
            recipe,
            auth_files: None,
            progress: Progress::none(),
            log: Log(None),
        }
    }
}

impl BuildImage {
    fn dockerfile_recipe(mut self, change: impl FnOnce(&mut v1::DockerfileRecipe)) -> Self {
        if let Input::Dockerfile { recipe, .. } = &mut self.recipe {
            change(recipe);
        }
        self
    }

    /// By this file instead of the context's `Dockerfile`.
    pub fn dockerfile(mut self, path: impl AsRef<Path>) -> Self {
        if let Input::Dockerfile { file, .. } = &mut self.recipe {
            *file = Some(path.as_ref().to_owned());
        }
        self
    }

    /// By this text; `name` is for messages.
    pub fn dockerfile_text(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        if let Input::Dockerfile { file, .. } = &mut self.recipe {
            *file = None;
        }
        let (name, text) = (name.into(), text.into());
        self.dockerfile_recipe(|recipe| (recipe.name, recipe.text) = (name, text))
    }

    /// A value for an ARG.
    pub fn build_arg(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let (name, value) = (name.into(), value.into());
        self.dockerfile_recipe(|recipe| {
            recipe.build_args.insert(name, value);
        })
    }

    /// This stage instead of the last.
    pub fn target(self, stage: impl Into<String>) -> Self {
        let stage = stage.into();
        self.dockerfile_recipe(|recipe| recipe.target = stage)
    }

    /// This package too.
    pub fn include(mut self, package: impl Into<String>) -> Self {
        if let Input::Debian(recipe) = &mut self.recipe {
            recipe.include.push(package.into());
        }
        self
    }

    /// How much of the distribution, as mmdebstrap names it, instead of `minbase`.
    pub fn variant(mut self, variant: impl Into<String>) -> Self {
        if let Input::Debian(recipe) = &mut self.recipe {
            recipe.variant = variant.into();
        }
        self
    }

    /// Runs every step, whatever is kept of earlier builds.
    pub fn no_cache(mut self) -> Self {
        self.start.no_cache = true;
        self
    }

    /// The VMs in which steps run get this much memory.
    pub fn memory_mib(mut self, mib: i32) -> Self {
        self.start.memory_mib = mib;
        self
    }

    /// The VMs in which steps run get this many virtual CPUs.
    pub fn vcpus(mut self, count: i32) -> Self {
        self.start.vcpu_count = count;
        self
    }

    /// The build may add this much.
    pub fn disk_bytes(mut self, bytes: i64) -> Self {
        self.start.disk_size_bytes = bytes;
        self
    }

    /// The VMs in which steps run get this network.
    pub fn network(mut self, network: NetworkMode) -> Self {
        self.start.network = network.into();
        self
    }

    /// The VMs in which steps run boot this kernel.
    pub fn kernel(mut self, kernel: impl Into<String>) -> Self {
        self.start.kernel = kernel.into();
        self
    }

    /// With this login for base images of `place`: a registry, a repository in it, or a part of its path. Used for this
    /// build and never stored.
    pub fn login(mut self, place: impl Into<String>, login: Login) -> Self {
        self.start.auths.insert(place.into(), basic_auth(login));
        self
    }

    /// With the logins that these files of this client have for the base images that the Dockerfile names. Where they
    /// have none, the daemon looks into its own.
    pub fn auth_files(mut self, files: AuthFiles) -> Self {
        self.auth_files = Some(files);
        self
    }

    /// With this request id.
    pub fn request_id(mut self, id: Uuid) -> Self {
        self.start.request_id = id.to_string();
        self
    }

    /// Calls back each time the operation has changed.
    pub fn progress(mut self, callback: impl FnMut(&v1::Operation) + Send + 'static) -> Self {
        self.progress = Progress::to(callback);
        self
    }

    /// Calls back with each piece of output.
    pub fn log(mut self, callback: impl FnMut(&v1::BuildLog) + Send + 'static) -> Self {
        self.log = Log(Some(Box::new(callback)));
        self
    }

    async fn run(self) -> Result<v1::Image> {
        const CALL: &str = "BuildImage";
        let Self {
            images,
            mut start,
            recipe,
            auth_files,
            mut progress,
            mut log,
        } = self;
        let mut parts: Vec<crate::upload::Part<v1::BuildImageRequest>> = Vec::new();
        start.recipe = Some(match recipe {
            Input::Debian(recipe) => Recipe::Debian(recipe),
            Input::Dockerfile {
                context,
                file,
                mut recipe,
            } => {
                if let Some(file) = &file {
                    recipe.text = read(file)?;
                    recipe.name = file.display().to_string();
                }
                if let Some(files) = auth_files {
                    let logins = logins(&files, &recipe).await?;
                    for (place, auth) in logins {
                        start.auths.entry(place).or_insert(auth);
                    }
                }
                parts.push((pruned(context, file.as_deref())?, |data: Bytes| {
                    wrap(Message::Chunk(data))
                }));
                Recipe::Dockerfile(recipe)
            }
        });
        send(wrap(Message::Start(start)), parts, |stream| async move {
            let answer = images.rpc().build_image(stream).await;
            let mut answer = images.watched(answer, CALL)?;
            while let Some(message) = answer.next().await? {
                if let (Some(Told::Log(told)), Log(Some(log))) = (&message.message, &mut log) {
                    log(told);
                }
                match message.into_step() {
                    Some(Step::Progress(operation)) => progress.tell(&operation),
                    Some(Step::Done(image)) => return Ok(image),
                    Some(Step::Idle) => {}
                    None => {
                        let detail = "an empty message";
                        return Err(Error::Protocol {
                            during: CALL,
                            detail,
                        });
                    }
                }
            }
            Err(Error::cut_short(CALL))
        })
        .await
    }
}

/// What files have for the base images of a recipe, each for its own repository alone.
async fn logins(
    files: &AuthFiles,
    recipe: &v1::DockerfileRecipe,
) -> Result<Vec<(String, v1::BasicAuth)>> {
    let mut logins = Vec::new();
    for base in bases(&recipe.text, &recipe.build_args) {
        let place = registry_and_repository(&base);
        let found = files.login(&place).await.map_err(Error::Credentials)?;
        logins.extend(found.map(|login| (place.to_string(), basic_auth(login))));
    }
    Ok(logins)
}

fn wrap(message: Message) -> v1::BuildImageRequest {
    v1::BuildImageRequest {
        message: Some(message),
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| Error::Upload {
        path: path.to_owned(),
        source,
    })
}

/// A directory without what is ignored: by the file beside the Dockerfile that is named after it, else by
/// the context's own.
fn pruned(context: Source, dockerfile: Option<&Path>) -> Result<Source> {
    let Some(directory) = context.directory() else {
        return Ok(context);
    };
    let named = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    let candidates = named.into_iter().chain([directory.join(".dockerignore")]);
    let ignored = match candidates.into_iter().find(|path| path.is_file()) {
        Some(path) => read(&path)?,
        None => String::new(),
    };
    Ok(Source::Context(BuildContext::new(directory, &ignored)))
}

impl IntoFuture for BuildImage {
    type Output = Result<v1::Image>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}

impl ExportMessage for v1::ExportOciLayoutResponse {
    fn part(self) -> Option<ExportPart> {
        use v1::export_oci_layout_response::Message;
        Some(match self.message? {
            Message::Start(start) => ExportPart::Start(start),
            Message::Chunk(bytes) => ExportPart::Chunk(bytes),
            Message::End(end) => ExportPart::End(end),
            Message::Heartbeat(_) => ExportPart::Idle,
        })
    }
}

impl IntoStep<v1::Image> for v1::BuildImageResponse {
    fn into_step(self) -> Option<Step<v1::Image>> {
        Some(match self.message? {
            Told::Operation(operation) => Step::Progress(operation),
            Told::Image(image) => Step::Done(image),
            Told::Log(_) | Told::Heartbeat(_) => Step::Idle,
        })
    }
}
