//! Reads the code's imports, and holds them to the code map in `docs/architecture.md`.
//!
//! The page is the table: what it says a module imports is all that the module may import, and a crate that it says is
//! known to one part only is named nowhere else. So the page cannot fall behind the code, nor the code leave the page.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The invariant by which a module may name no server, no runtime and no clock.
const PURE: &str = "It knows no server and no clock.";

/// The invariant by which a module may use times, but never ask for one.
const TIMELESS: &str = "It reads no clock.";

/// What a module must not name that is [`PURE`], and what one must not that is [`TIMELESS`].
const SERVERS: [&str; 4] = ["redis::", "mongodb::", "tokio::", "std::net"];
const CLOCKS: [&str; 5] = ["Instant", "SystemTime", "DateTime::now", "tokio::time", "std::time::UNIX_EPOCH"];
const READINGS: [&str; 5] = ["Instant::now", "SystemTime::now", "DateTime::now", "elapsed(", "tokio::"];

/// A file of the code, without comments and tests.
struct SourceFile {
    /// Its path below `src/`.
    path: String,
    module: String,
    text: String,
}

/// What the page says of a module.
#[derive(Default)]
struct Described {
    text: String,
    imports: BTreeSet<String>,
}

type Graph = BTreeMap<String, BTreeMap<String, String>>;

#[test]
fn the_code_map_lists_every_module() {
    let listed: BTreeSet<_> = described(&page()).into_keys().collect();
    let there: BTreeSet<_> = modules();
    let missing: Vec<_> = there.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&there).collect();
    assert!(missing.is_empty(), "the code map lacks {missing:?}");
    assert!(gone.is_empty(), "the code map lists {gone:?}, which src/ does not have");
}

#[test]
fn no_circle_of_modules() {
    let graph = imports();
    if let Some(circle) = circle(&graph) {
        let steps = circle.iter().zip(circle.iter().cycle().skip(1));
        let steps: Vec<_> = steps.map(|(a, b)| format!("{a} -> {b} ({})", graph[a][b])).collect();
        panic!("modules import each other in a circle: {}", steps.join(", "));
    }
}

#[test]
fn modules_import_what_the_code_map_says() {
    let (described, graph) = (described(&page()), imports());
    let mut wrong = Vec::new();
    for (module, imported) in &graph {
        let Some(said) = described.get(module) else { continue };
        let before = wrong.len();
        for (other, file) in imported.iter().filter(|(other, _)| !said.imports.contains(*other)) {
            wrong.push(format!("{file} imports `{other}`, and the page does not let `{module}`"));
        }
        for other in said.imports.iter().filter(|other| !imported.contains_key(*other)) {
            wrong.push(format!("the page says that `{module}` imports `{other}`, and it does not"));
        }
        if wrong.len() > before {
            let all: Vec<_> = imported.keys().map(|other| format!("`{other}`")).collect();
            wrong.push(format!("  the code has, for `{module}`: Imports: {}.", all.join(", ")));
        }
    }
    assert!(wrong.is_empty(), "imports differ from docs/architecture.md:\n{}", wrong.join("\n"));
}

#[test]
fn crates_stay_where_the_code_map_has_them() {
    let page = page();
    let rows: Vec<Vec<&str>> = section(&page, "### Crates")
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').collect())
        .collect();
    assert!(rows.len() >= 2, "the page has a table of crates");
    let mut wrong = Vec::new();
    for row in rows {
        let name = spans(row[0])[0].replace('-', "_");
        let allowed: BTreeSet<_> = spans(row[1]).into_iter().collect();
        let mut users = BTreeSet::new();
        for file in files().iter().filter(|file| names_crate(&file.text, &name)) {
            users.insert(file.module.clone());
            if !allowed.contains(&*file.module) {
                wrong.push(format!("src/{} names the crate `{name}`", file.path));
            }
        }
        for module in allowed.iter().filter(|module| !users.contains(**module)) {
            wrong.push(format!("the page lets `{module}` name the crate `{name}`, which it does not"));
        }
    }
    assert!(wrong.is_empty(), "crates are where docs/architecture.md has them not:\n{}", wrong.join("\n"));
}

#[test]
fn pure_modules_know_no_server_and_no_clock() {
    let described = described(&page());
    let of = |invariant: &str| -> Vec<String> {
        let all = described.iter().filter(|(_, said)| said.text.contains(invariant));
        all.map(|(module, _)| module.clone()).collect()
    };
    let (pure, timeless) = (of(PURE), of(TIMELESS));
    for module in ["batch", "coalesce", "commit"] {
        assert!(pure.iter().any(|name| name == module), "{module} is pure: {PURE:?}");
    }
    assert!(!timeless.is_empty(), "no module is said to read no clock: {TIMELESS:?}");
    let mut wrong = Vec::new();
    for file in files() {
        let bans: Vec<&str> = match () {
            () if pure.contains(&file.module) => SERVERS.into_iter().chain(CLOCKS).collect(),
            () if timeless.contains(&file.module) => READINGS.to_vec(),
            () => continue,
        };
        for ban in bans.iter().filter(|ban| file.text.contains(**ban)) {
            wrong.push(format!("src/{} names {ban:?}", file.path));
        }
    }
    assert!(wrong.is_empty(), "modules are not what docs/architecture.md says:\n{}", wrong.join("\n"));
}

/// Each step of the walk names a file, once, and functions of it, `name()`, or a script.
#[test]
fn the_walk_passes_files_and_functions_that_are_there() {
    let page = page();
    let steps = items(section(&page, "## One event, file by file"), |line| line.split_once(". `").is_some());
    assert!(steps.len() > 20, "the walk has {} steps", steps.len());
    let mut passed = BTreeSet::new();
    for step in steps {
        let names = spans(&step);
        let Ok(text) = fs::read_to_string(Path::new(ROOT).join("src").join(names[0])) else {
            panic!("src/{} is not there", names[0]);
        };
        assert!(passed.insert(names[0].to_owned()), "the walk opens {} twice", names[0]);
        let is_script = |name: &&str| !name.contains(|c: char| !c.is_ascii_uppercase() && c != '_');
        let scripts = names.iter().copied().filter(is_script).filter(|name| *name != "LRANGE");
        let functions: Vec<_> = names.iter().filter_map(|name| name.strip_suffix("()")).collect();
        assert!(functions.len() + scripts.clone().count() > 0, "the walk names no function of {}", names[0]);
        for script in scripts {
            assert!(text.contains(&format!("const {script}: &str")), "src/{} has no `{script}`", names[0]);
        }
        for function in functions {
            let (holder, name) = function.rsplit_once("::").unwrap_or(("", function));
            let is_there = text.contains(&format!("fn {name}(")) || text.contains(&format!("fn {name}<"));
            assert!(is_there && text.contains(holder), "src/{} has no `{function}`", names[0]);
        }
    }
}

/// Whatever the pages call a file is one, and what the model's page calls a function is one.
#[test]
fn pages_name_what_is_there() {
    let mut wrong = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let page = page.strip_prefix(ROOT).unwrap().display();
        for name in spans(&text) {
            let is_code = name.ends_with(".rs") && !name.contains(['*', '<', ' ']);
            let places = ["", "src", "tests/suite", "examples/collab"]
                .map(|below| Path::new(ROOT).join(below).join(name));
            if is_code && !places.iter().any(|place| place.exists()) {
                wrong.push(format!("{page} names the file {name}"));
            }
        }
    }
    let model = fs::read_to_string(Path::new(ROOT).join("docs/model.md")).unwrap();
    let files = files();
    for name in spans(&model).iter().filter(|name| !name.contains(' ')) {
        let Some((holder, function)) = name.rsplit_once("::") else { continue };
        let holder = holder.rsplit("::").next().unwrap();
        let is_there = files.iter().any(|file| {
            let is_holder = file.text.contains(&format!("impl {holder} "))
                || file.path.trim_end_matches(".rs").split('/').any(|part| part == holder);
            is_holder && file.text.contains(&format!("fn {function}"))
        });
        if !is_there {
            wrong.push(format!("docs/model.md names the function {name}"));
        }
    }
    assert!(wrong.is_empty(), "the pages name what is not there:\n{}", wrong.join("\n"));
}

#[test]
fn every_file_begins_with_its_job() {
    let mut wrong = Vec::new();
    for path in rust_files("src").into_iter().chain(rust_files("tests")) {
        let text = fs::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap_or_default();
        let job = first.strip_prefix("//! ").unwrap_or_default();
        let is_sentence = job.ends_with(['.', '>']) || job.contains(". ");
        if !is_sentence || !job.starts_with(char::is_uppercase) {
            wrong.push(format!("{}: {first}", path.strip_prefix(ROOT).unwrap().display()));
        }
    }
    assert!(wrong.is_empty(), "the first line is not a sentence that tells the job:\n{}", wrong.join("\n"));
}

fn page() -> String {
    fs::read_to_string(Path::new(ROOT).join("docs/architecture.md")).unwrap()
}

fn pages() -> Vec<PathBuf> {
    let docs = fs::read_dir(Path::new(ROOT).join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.chain(["README.md", "CONTRIBUTING.md"].map(|name| Path::new(ROOT).join(name))).collect()
}

/// What is below a heading, to the next of its level or above.
fn section<'p>(page: &'p str, heading: &str) -> &'p str {
    let start = page.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("the page has {heading:?}"));
    let body = &page[start + heading.len() + 2..];
    let level = heading.bytes().take_while(|byte| *byte == b'#').count();
    let ends = (1..=level).filter_map(|level| body.find(&format!("\n{} ", "#".repeat(level))));
    &body[..ends.min().unwrap_or(body.len())]
}

/// The items of a list, each as one line. An item begins at a line that `begins`, and ends at an empty line or the next.
fn items(section: &str, begins: impl Fn(&str) -> bool) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    let mut open = false;
    for line in section.lines() {
        if begins(line) {
            items.push(String::new());
            open = true;
        }
        open &= !line.is_empty();
        if let Some(item) = items.last_mut().filter(|_| open) {
            item.push_str(line.trim());
            item.push(' ');
        }
    }
    items
}

/// The code spans of a text.
fn spans(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// What the code map says, by module.
fn described(page: &str) -> BTreeMap<String, Described> {
    let items = items(section(page, "## Code map"), |line| line.starts_with("- `"));
    let described = items.into_iter().map(|item| {
        let module = spans(&item)[0].to_owned();
        let (_, imports) = item.split_once("Imports: ").unwrap_or_else(|| panic!("{module} has its imports"));
        let imports = spans(imports).into_iter().map(str::to_owned).collect();
        (module, Described { text: item, imports })
    });
    described.collect()
}

fn modules() -> BTreeSet<String> {
    files().into_iter().map(|file| file.module).collect()
}

/// All files of the code but `lib.rs`, which declares the modules, and `main.rs`, which stands above them.
fn files() -> Vec<SourceFile> {
    let src = Path::new(ROOT).join("src");
    let mut files = Vec::new();
    for path in rust_files("src") {
        let name = path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
        let is_test = name.ends_with("tests.rs") || name.starts_with("sink/law/");
        if !is_test && name != "lib.rs" && name != "main.rs" {
            let module = name.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
            let text = code(&fs::read_to_string(&path).unwrap());
            files.push(SourceFile { path: name, module, text });
        }
    }
    files
}

fn rust_files(below: &str) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![Path::new(ROOT).join(below)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// A file's text without its tests and its comments.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = text.lines().map(|line| match line.find("//") {
        Some(at) if line[..at].trim().is_empty() || line[..at].ends_with(' ') => &line[..at],
        _ => line,
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// What each module imports of the others, and a file that does.
fn imports() -> Graph {
    let modules = modules();
    let mut graph: Graph = modules.iter().map(|module| (module.clone(), BTreeMap::new())).collect();
    for file in files() {
        for name in imported(&file) {
            if name != file.module && modules.contains(&name) {
                let of_module = graph.get_mut(&file.module).unwrap();
                of_module.entry(name).or_insert_with(|| format!("src/{}", file.path));
            }
        }
    }
    graph
}

/// The first names of all paths from the crate's root: `crate::a::b`, `crate::{a::b, c}`, and as many `super` as lead
/// there.
fn imported(file: &SourceFile) -> Vec<String> {
    let depth = file.path.trim_end_matches(".rs").trim_end_matches("/mod").split('/').count();
    let mut names = Vec::new();
    for root in ["crate::".to_owned(), "super::".repeat(depth)] {
        for (at, _) in file.text.match_indices(&root) {
            let is_longer = root.starts_with("super") && file.text[..at].ends_with("super::");
            let rest = file.text[at + root.len()..].trim_start();
            match rest.strip_prefix('{') {
                _ if is_longer => {}
                Some(group) => names.extend(group_names(group)),
                None => names.push(identifier(rest)),
            }
        }
    }
    names
}

/// The first names of the paths of a group, behind its opening brace.
fn group_names(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut is_first) = (1, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => is_first = true,
            c if is_first && (c.is_alphabetic() || c == '_') => {
                names.push(identifier(&group[at..]));
                is_first = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Whether a text has a path that begins with a crate's name, or imports it whole.
fn names_crate(text: &str, name: &str) -> bool {
    let begins = |at: usize| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    let path = format!("{name}::");
    let whole = [format!("use {name};"), format!("use {name} as"), format!("use ::{name}")];
    text.match_indices(&path).any(|(at, _)| begins(at)) || whole.iter().any(|whole| text.contains(whole))
}

/// The modules of a circle, in order, if there is one.
fn circle(graph: &Graph) -> Option<Vec<String>> {
    fn visit(graph: &Graph, module: &str, way: &mut Vec<String>, done: &mut BTreeSet<String>) -> bool {
        if let Some(start) = way.iter().position(|passed| passed == module) {
            way.drain(..start);
            return true;
        }
        if done.contains(module) {
            return false;
        }
        way.push(module.to_owned());
        if graph[module].keys().any(|next| visit(graph, next, way, done)) {
            return true;
        }
        way.pop();
        done.insert(module.to_owned());
        false
    }
    let (mut way, mut done) = (Vec::new(), BTreeSet::new());
    graph.keys().any(|module| visit(graph, module, &mut way, &mut done)).then_some(way)
}

#[test]
fn imports_are_found_however_they_are_written() {
    let text = "use crate::{a::{x, y}, b, c::z};\nfn f() -> crate::d::T { super::super::e::g(); super::h() }";
    let file = SourceFile { path: "m/n.rs".to_owned(), module: "m".to_owned(), text: code(text) };
    assert_eq!(imported(&file), ["a", "b", "c", "d", "e"]);
    assert_eq!(code("use a; // crate::b\n//! crate::c\n#[cfg(test)]\nmod tests {\nuse d;"), "use a; \n\n");
    assert!(names_crate("let x = redis::pipe();", "redis") && !names_crate("source::redis::X", "redis"));
}
