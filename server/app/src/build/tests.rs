//! The rules of Dockerfiles, without any VM.

use std::collections::BTreeSet;

use banger_core::Explain as _;

use super::error::BuildError;
use super::plan::{Action, Copy, CopyFrom, Settings, StagePlan};
use super::recipe::{Base, DockerfileRequest, Recipe};

fn request(text: &str) -> DockerfileRequest {
    DockerfileRequest {
        text: text.into(),
        ..DockerfileRequest::default()
    }
}

fn parse(text: &str) -> Result<Recipe, BuildError> {
    Recipe::parse(&request(text))
}

fn planned(request: &DockerfileRequest) -> Result<StagePlan, BuildError> {
    let recipe = Recipe::parse(request)?;
    StagePlan::new(
        &recipe,
        recipe.target,
        Settings::scratch(),
        &mut BTreeSet::new(),
    )
}

fn plan(text: &str) -> Result<StagePlan, BuildError> {
    planned(&request(text))
}

fn run(plan: &StagePlan, number: usize) -> (Vec<String>, String, String) {
    match &plan.steps[number].action {
        Action::Run {
            command,
            user,
            working_dir,
            ..
        } => (command.clone(), user.clone(), working_dir.clone()),
        other => panic!("{other:?}"),
    }
}

fn copy(plan: &StagePlan, number: usize) -> &Copy {
    match &plan.steps[number].action {
        Action::Copy(copy) => copy,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_the_stages_that_the_target_needs_are_built() {
    let text = "FROM debian AS base\nRUN a\nFROM alpine AS unused\nRUN b\nFROM base AS tool\nRUN c\n\
                FROM scratch\nCOPY --from=tool /x /\nCOPY --from=busybox:1 /y /\n";
    let recipe = parse(text).unwrap();
    assert_eq!(recipe.needed, [0, 2, 3]);
    assert_eq!(recipe.images(), BTreeSet::from(["debian", "busybox:1"]));
    assert_eq!(recipe.stages[2].base, Base::Stage(0));
    let target = |target: &str| {
        Recipe::parse(&DockerfileRequest {
            target: target.into(),
            ..request(text)
        })
    };
    assert_eq!(target("UNUSED").unwrap().needed, [1]);
    assert_eq!(target("2").unwrap().needed, [0, 2]);
    let error = target("nope").unwrap_err();
    assert_eq!(error.reason(), "BUILD_STAGE_UNKNOWN");
}

#[test]
fn arguments_before_from_reach_a_stage_only_when_it_declares_them() {
    let text = "ARG V=12\nARG FULL=debian:$V\nFROM $FULL\nRUN a\nARG V\nRUN b\nARG V=13\nRUN c\n";
    let recipe = parse(text).unwrap();
    assert_eq!(recipe.stages[0].base, Base::Image("debian:12".into()));
    let with = |args: &[(&str, &str)]| {
        let build_args = args
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        let plan = planned(&DockerfileRequest {
            build_args: build_args.collect(),
            ..request(text)
        });
        let values = plan
            .unwrap()
            .steps
            .into_iter()
            .map(|step| match step.action {
                Action::Run { env, .. } => env.get("V").cloned(),
                _ => None,
            });
        values.collect::<Vec<_>>()
    };
    assert_eq!(with(&[]), [None, Some("12".into()), Some("13".into())]);
    assert_eq!(
        with(&[("V", "9")]),
        [None, Some("9".into()), Some("9".into())]
    );
}

#[test]
fn env_wins_over_arg_and_sees_what_was_before_its_line() {
    let plan = plan("FROM scratch\nARG A=arg\nENV A=env B=$A\nENV C=$A\nRUN x\n").unwrap();
    let Action::Run { env, .. } = &plan.steps[0].action else {
        panic!("{plan:?}");
    };
    let value = |name: &str| env[name].as_str();
    assert_eq!((value("A"), value("B"), value("C")), ("env", "arg", "env"));
    // An ARG is no part of the image.
    assert!(
        plan.settings
            .config
            .env
            .iter()
            .all(|(name, _)| name != "ARG")
    );
}

#[test]
fn commands_have_a_shell_form_and_an_exec_form() {
    let text = "FROM scratch\nUSER web\nWORKDIR /a\nWORKDIR b/../c\nRUN echo a && \\\n  # why\n  echo b\n\
                RUN [\"x\", \"a\\tb\"]\nSHELL [\"/bin/bash\", \"-ec\"]\nRUN y $A\nCMD z\n";
    let plan = plan(text).unwrap();
    let shell = |text: &str| vec!["/bin/sh".to_owned(), "-c".into(), text.into()];
    let at = |command| (command, "web".to_owned(), "/a/c".to_owned());
    assert_eq!(run(&plan, 2), at(shell("echo a &&   echo b")));
    assert_eq!(run(&plan, 3), at(vec!["x".into(), "a\tb".into()]));
    assert_eq!(
        run(&plan, 4),
        at(vec!["/bin/bash".into(), "-ec".into(), "y $A".into()])
    );
    assert_eq!(plan.settings.config.cmd, ["/bin/bash", "-ec", "z"]);
    assert_eq!(plan.settings.config.working_dir, "/a/c");
}

#[test]
fn here_documents_are_the_command_its_input_or_a_file() {
    let text = "FROM scratch\nENV A=1\nRUN <<EOF\necho $A\necho b\nEOF\nRUN <<'E' cat\n$A\nE\n\
                COPY <<F /x\nv=$A\nF\nCOPY <<'F' /y\nv=$A\nF\n";
    let plan = plan(text).unwrap();
    assert_eq!(run(&plan, 0).0[2].trim_end(), "echo $A\necho b");
    assert_eq!(run(&plan, 1).0[2], " cat <<'BANGER_END'\n$A\nBANGER_END\n");
    assert_eq!(copy(&plan, 2).from, CopyFrom::Inline("v=1\n".into()));
    assert_eq!(copy(&plan, 3).from, CopyFrom::Inline("v=$A\n".into()));
}

#[test]
fn an_entrypoint_forgets_the_command_of_its_base() {
    let mut base = Settings::scratch();
    base.config.cmd = vec!["base".into()];
    let cmd = |text: &str| {
        let recipe = parse(text).unwrap();
        let plan = StagePlan::new(&recipe, 0, base.clone(), &mut BTreeSet::new()).unwrap();
        plan.settings.config.cmd
    };
    assert_eq!(cmd("FROM x\nENTRYPOINT [\"e\"]\n"), Vec::<String>::new());
    assert_eq!(cmd("FROM x\nCMD [\"c\"]\nENTRYPOINT [\"e\"]\n"), ["c"]);
    assert_eq!(cmd("FROM x\nLABEL a=b\n"), ["base"]);
}

#[test]
fn destinations_are_joined_and_keep_their_slash() {
    let text = "FROM scratch\nWORKDIR /w\nENV D=dir\nCOPY a .\nCOPY a $D/\nCOPY --chown=1:2 --chmod=4755 a b /x/\n\
                ADD a /\nCOPY a ../../up\nCOPY [\"a b\", \"c d\"]\n";
    let plan = plan(text).unwrap();
    let dest = |number| copy(&plan, number).dest.as_str();
    assert_eq!(
        [dest(1), dest(2), dest(3), dest(4), dest(5), dest(6)],
        ["/w/", "/w/dir/", "/x/", "/", "/up", "/w/c d"]
    );
    let owned = copy(&plan, 3);
    assert_eq!(
        (owned.owner.as_deref(), owned.mode),
        (Some("1:2"), Some(0o4755))
    );
    assert_eq!(owned.sources, ["a", "b"]);
    assert_eq!(copy(&plan, 6).sources, ["a b"]);
}

#[test]
fn the_configuration_is_what_the_instructions_say() {
    let text = "FROM scratch\nLABEL a=1 \"b c\"='d e'\nEXPOSE 80 53/udp 8000-8002\nSTOPSIGNAL SIGINT\n\
                VOLUME /data\nVOLUME [\"/a b\"]\nUSER app\n";
    let settings = plan(text).unwrap().settings;
    let config = settings.config;
    assert_eq!(config.labels["b c"], "d e");
    let ports: Vec<&str> = config.exposed_ports.iter().map(String::as_str).collect();
    assert_eq!(
        ports,
        ["53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp"]
    );
    assert_eq!(
        (config.stop_signal.as_str(), config.user.as_str()),
        ("SIGINT", "app")
    );
    assert_eq!(
        settings.volumes,
        BTreeSet::from(["/a b".into(), "/data".into()])
    );
    assert_eq!(settings.history.len(), 6);
    assert!(settings.history.iter().all(|line| !line.changes));
}

#[test]
fn errors_name_file_line_and_instruction() {
    for (text, reason, has) in [
        ("FROM a\nFOO b\n", "DOCKERFILE_INVALID", ":2: "),
        ("RUN a\n", "DOCKERFILE_INVALID", "FROM"),
        ("", "DOCKERFILE_INVALID", "Dockerfile:1"),
        (
            "FROM a\n\nONBUILD RUN x\n",
            "DOCKERFILE_UNSUPPORTED",
            ":3: ONBUILD",
        ),
        (
            "FROM a\nRUN --mount=type=cache,target=/x y\n",
            "DOCKERFILE_UNSUPPORTED",
            "--mount",
        ),
        (
            "FROM a\nADD https://x/y /\n",
            "DOCKERFILE_UNSUPPORTED",
            ":2: ADD does not fetch",
        ),
        (
            "FROM a\nCOPY --parents a /\n",
            "DOCKERFILE_UNSUPPORTED",
            "--parents",
        ),
        (
            "FROM --platform=linux/s390x a\n",
            "DOCKERFILE_UNSUPPORTED",
            "s390x",
        ),
        ("FROM $NOTHING\n", "DOCKERFILE_INVALID", "variable"),
        ("FROM scratch\nRUN\n", "DOCKERFILE_INVALID", ":2: RUN"),
        (
            "FROM scratch\nCOPY a b /c\n",
            "DOCKERFILE_INVALID",
            ":2: COPY",
        ),
        ("FROM scratch\nENV A\n", "DOCKERFILE_INVALID", ":2: ENV"),
        ("FROM scratch\nEXPOSE x\n", "DOCKERFILE_INVALID", "no port"),
        (
            "FROM scratch\nCOPY --chmod=u+x a /\n",
            "DOCKERFILE_INVALID",
            "octal",
        ),
        (
            "FROM scratch\nWORKDIR ${A%x}\n",
            "DOCKERFILE_INVALID",
            "not supported",
        ),
        ("FROM a AS x\nFROM b AS x\n", "DOCKERFILE_INVALID", "x"),
        (
            "FROM scratch\nRUN <<EOF\nnever ends\n",
            "DOCKERFILE_INVALID",
            "EOF",
        ),
    ] {
        let error = plan(text).unwrap_err();
        assert_eq!(error.reason(), reason, "{text}: {error}");
        assert!(error.to_string().contains(has), "{text}: {error}");
    }
}

#[test]
fn what_a_vm_has_no_use_for_is_ignored_with_a_warning() {
    let recipe = parse("FROM a\nHEALTHCHECK CMD x\nMAINTAINER me\n").unwrap();
    assert_eq!(recipe.warnings.len(), 2);
    assert!(recipe.warnings[0].contains("Dockerfile:2: HEALTHCHECK"));
    assert!(recipe.stages[0].instructions.is_empty());
}
