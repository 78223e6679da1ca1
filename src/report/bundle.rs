//! Joins the modules of the page into one script.
//!
//! Each module becomes a function that returns what the module exports. An import becomes a constant of the importing
//! module. The modules keep to two forms of `import`, each on one line, and to `export` before a declaration.

/// Joins modules, each given by its file name and text, into one script. A module must come after those that it imports.
///
/// ```
/// use vaplan::report::bundle::join;
/// let modules = [
///     ("one.js", "export const one = 1;\n"),
///     ("two.js", "import { one } from \"./one.js\";\nexport function two() { return one + one; }\n"),
/// ];
/// let script = join(&modules);
/// assert!(script.contains("const { one } = module_one;"));
/// assert!(script.contains("return { two };"));
/// assert!(!script.contains("import ") && !script.contains("export "));
/// ```
///
/// # Panics
/// Panics if a module has an import of another form. The modules are files of the program, and a test joins them.
pub fn join(modules: &[(&str, &str)]) -> String {
    let mut script = String::from("\"use strict\";\n");
    for (name, text) in modules {
        let mut exports: Vec<&str> = Vec::new();
        script.push_str(&format!("const {} = (() => {{\n", constant(name)));
        for line in text.lines() {
            if line.starts_with("import ") {
                script.push_str(&imported(line));
            } else if let Some(declaration) = line.strip_prefix("export ") {
                exports.push(declared(declaration));
                script.push_str(declaration);
            } else {
                script.push_str(line);
            }
            script.push('\n');
        }
        script.push_str(&format!("return {{ {} }};\n}})();\n", exports.join(", ")));
    }
    script
}

/// The constant that holds a module.
fn constant(file: &str) -> String {
    format!("module_{}", file.trim_start_matches("./").trim_end_matches(".js"))
}

fn imported(line: &str) -> String {
    let parts = line
        .strip_prefix("import ")
        .and_then(|rest| rest.strip_suffix("\";"))
        .and_then(|rest| rest.split_once(" from \""));
    let (names, file) = parts.unwrap_or_else(|| panic!("`{line}`, expected `import NAMES from \"FILE\";`"));
    let names = names.strip_prefix("* as ").unwrap_or(names);
    format!("const {names} = {};", constant(file))
}

/// The name that a declaration declares.
fn declared(declaration: &str) -> &str {
    let words = declaration.split(|letter: char| !(letter.is_alphanumeric() || letter == '_'));
    let kinds = ["async", "function", "const", "let", "class", ""];
    words
        .into_iter()
        .find(|word| !kinds.contains(word))
        .expect("a declaration has a name")
}
