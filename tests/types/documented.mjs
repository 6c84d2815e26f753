// Whatever holdfast.d.mts exports has a comment that says what it is, and so have the members of it;
// but for those that their types explain (SELF) and those of JavaScript's own protocols.
import ts from "typescript";

const SELF = new Set(["operation", "operations", "timestamp", "createdAt", "signal"]);

const path = process.argv[2];
const text = ts.sys.readFile(path);
const file = ts.createSourceFile(path, text, ts.ScriptTarget.ESNext, true);
const missing = [];

function check(node, name) {
  if (ts.getJSDocCommentsAndTags(node).length === 0) {
    const { line } = file.getLineAndCharacterOfPosition(node.getStart());
    missing.push(`${path}:${line + 1}: ${name} has no comment`);
  }
}

file.forEachChild((node) => {
  if (!node.name) return;
  check(node, node.name.text);
  for (const member of node.members ?? []) {
    if (!member.name || ts.isComputedPropertyName(member.name)) continue;
    if (!SELF.has(member.name.text)) check(member, `${node.name.text}.${member.name.text}`);
  }
});
if (missing.length > 0) {
  console.error(missing.join("\n"));
  process.exit(1);
}
