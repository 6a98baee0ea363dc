"""Names of the AWS provider's resources, blocks and arguments, from the Python package that was made of the provider's own schema.
The provider itself is in no package registry. Values are not checked, and not what the provider checks beyond its schema."""

import ast
import re
import zipfile

META = {"count", "depends_on", "for_each", "lifecycle", "provider"}


class Schema:
    """Reads the classes of the package; nothing of it is run."""

    def __init__(self, wheel):
        self.wheel = zipfile.ZipFile(wheel)
        self.classes = {}

    def of(self, module):
        if module not in self.classes:
            tree = ast.parse(self.wheel.read(f"cdktf_cdktf_provider_aws/{module}/__init__.py"))
            self.classes[module] = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        return self.classes[module]

    def arguments(self, module, name):
        """Of a class: argument by name, as (needed, class of the block or None)."""
        (made,) = [node for node in self.of(module)[name].body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
        found = {}
        for argument, default in zip(made.args.kwonlyargs, made.args.kw_defaults):
            inner = re.findall(r"Union\['(\w+)', typing\.Dict", ast.unparse(argument.annotation))
            found[argument.arg] = (default is None, inner[0] if inner else None)
        return found

    def top(self, module):
        """The class of a whole resource; `KeyError` where there is none."""
        (name,) = [name for name, node in self.of(module).items() if any("TerraformMetaArguments" in ast.unparse(base) for base in node.bases)]
        return name


def blocks(text):
    """Formatted HCL as a list of (head, line number, arguments, inner blocks)."""
    root = ("", 0, set(), [])
    open_blocks, depth = [root], 0
    for number, line in enumerate(text.splitlines(), 1):
        bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', line.split(" # ")[0].strip())
        if bare.startswith("#"):
            continue
        if depth == 0 and re.fullmatch(r'\w+(?: "")* \{', bare):
            block = (line.strip().removesuffix("{").strip(), number, set(), [])
            open_blocks[-1][3].append(block)
            open_blocks.append(block)
            continue
        if depth == 0 and bare == "}":
            open_blocks.pop()
            continue
        if depth == 0 and (argument := re.match(r"(\w+)\s+= ", bare)):
            open_blocks[-1][2].add(argument[1])
        depth += sum((c in "([{") - (c in ")]}") for c in bare)
    assert open_blocks == [root] and depth == 0, "brackets"
    return root[3]


def faults(schema, text):
    """What of the resources and data sources the provider does not know, and what it wants and is not there."""
    found = []
    for head, line, typed, inner in blocks(text):
        parts = head.replace('"', "").split()
        if parts[0] not in ("resource", "data") or not parts[1].startswith("aws_"):
            continue
        module = parts[1].removeprefix("aws_") if parts[0] == "resource" else f"data_{parts[1]}"
        try:
            name = schema.top(module)
        except KeyError:
            found.append(f"{head}: no such resource")
            continue
        found += inside(schema, module, name, head, typed - META, [block for block in inner if block[0] not in META])
    return found


def inside(schema, module, name, head, typed, inner):
    known = schema.arguments(module, name)
    found = [f"{head}: no argument `{one}`" for one in sorted(typed - known.keys())]
    there = typed | {block[0] for block in inner}
    found += [f"{head}: `{one}` is wanted" for one, (needed, _) in known.items() if needed and one not in there]
    for block, _, deeper, below in inner:
        of = known.get(block, (False, None))[1]
        if of is None:
            found.append(f"{head}: no block `{block}`")
        else:
            found += inside(schema, module, of, f"{head} {block}", deeper, below)
    return found
