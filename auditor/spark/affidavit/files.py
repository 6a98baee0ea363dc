"""FORMAT.md 8: the Parquet files, read by pyarrow and held against the leaves."""

import decimal
from hashlib import sha256

import pyarrow as pa
import pyarrow.parquet as pq

from . import canonical
from . import leaf as leaves
from . import tree

decimal.getcontext().prec = 60
MAX_DATA = 1_057_792
# What pyarrow raises over bytes that it cannot read; text that is none and numbers that fit nowhere show only where they are asked for.
BROKEN = (pa.ArrowException, OSError, ValueError, ArithmeticError)


def open_file(data, kind, form, exact, place, findings):
    """The file where its schema is the format's; extra columns are listed or refused."""
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        return file if is_form(file, kind, form, exact, place, findings) else None
    except MemoryError:
        raise
    except BROKEN as error:
        findings.add("UNREADABLE", place.of(kind), "a Parquet file", error)
        return None


def is_form(file, kind, form, exact, place, findings):
    """Whether the columns are the format's: what else the footer says is told, and hinders nobody from reading."""
    wanted = form.schemas[kind]
    found = [describe(file.schema.column(i)) for i in range(len(file.schema))]
    for i, column in enumerate(wanted):
        if i >= len(found) or found[i] != expected(column):
            findings.add("SCHEMA_DRIFT", place.of(f"{kind} schema, column {column[0]}"), expected(column), found[i:i + 1])
            return False
    for column in found[len(wanted):]:
        code = "SCHEMA_DRIFT" if exact else "NOT_JUDGED"
        findings.add(code, place.of(f"{kind} schema, column {column[0]}"), "no such column", column)
    if len({column[0] for column in found}) != len(found):
        findings.add("SCHEMA_DRIFT", place.of(f"{kind} schema"), "each name once", [column[0] for column in found])
        return False
    if file.metadata.metadata:
        findings.add("SCHEMA_DRIFT", place.of(f"{kind} footer, file"), "no key-value metadata", list(file.metadata.metadata))
    check_footer(file, kind, place, findings)
    return True


def expected(column):
    name, optional, physical, length, logical = column
    return name, optional, physical, length if physical.startswith("FIXED") else 0, logical or "NONE"


def describe(column):
    logical = str(column.logical_type)
    if logical == "String":
        logical = "STRING"
    elif logical.startswith("Decimal"):
        logical = f"DECIMAL({column.precision},{column.scale})"
    elif logical.startswith("Timestamp"):
        utc = "isAdjustedToUTC=true" in logical
        unit = "MICROS" if "microseconds" in logical else "?"
        logical = f"TIMESTAMP({unit},{'true' if utc else 'false'})"
    elif logical == "None":
        logical = "NONE"
    length = (column.length or 0) if column.physical_type.startswith("FIXED") else 0
    if column.max_repetition_level or "." in column.path:
        logical = "nested"
    return column.name, column.max_definition_level == 1, column.physical_type, length, logical


def check_footer(file, kind, place, findings):
    metadata = file.metadata
    for g in range(metadata.num_row_groups):
        group = metadata.row_group(g)
        for c in range(group.num_columns):
            chunk = group.column(c)
            where = place.of(f"{kind} row group {g}, column {chunk.path_in_schema}")
            codec = "UNCOMPRESSED" if (kind, chunk.path_in_schema) == ("content", "data") else "ZSTD"
            if chunk.compression != codec:
                findings.add("SCHEMA_DRIFT", where, codec, chunk.compression)
            if chunk.has_column_index or chunk.has_offset_index:
                findings.add("STATS_LIE", place.of(f"{kind} footer, column chunk"), "no page index", "one")
            bare = kind != "records" or chunk.path_in_schema in ("leaf", "leaf_hash")
            if bare and chunk.is_stats_set:
                findings.add("STATS_LIE", where.of(f"{where.item}, statistics"), "no statistics", chunk.statistics)
            if chunk.num_values != group.num_rows:
                item = f"{kind} footer, row group {g}, {chunk.path_in_schema}"
                findings.add("STATS_LIE", place.of(item), f"{group.num_rows} values", chunk.num_values)


def check_statistics(chunk, cells, where, findings):
    """The footer's bounds against all values of the chunk."""
    stats = chunk.statistics if chunk.is_stats_set else None
    if stats is None:
        return
    present = [cell for cell in cells if cell is not None]
    nulls = len(cells) - len(present)
    if stats.has_null_count and stats.null_count != nulls:
        findings.add("STATS_LIE", where.of(f"{where.item}, null count"), nulls, stats.null_count)
    if stats.has_distinct_count and stats.distinct_count is not None:
        findings.add("STATS_LIE", where.of(f"{where.item}, distinct count"), "none", stats.distinct_count)
    if stats.has_min_max:
        ends = (min(present, key=order), max(present, key=order)) if present else (None, None)
        for what, wanted, found in zip(("smallest", "largest"), ends, (plain(stats.min), plain(stats.max))):
            if wanted != found:
                findings.add("STATS_LIE", where.of(f"{where.item}, {what} value"), wanted, found)


def order(value):
    return value.encode() if isinstance(value, str) else value


def plain(value):
    """A value of pyarrow's as a leaf's cell has it: text, integers, booleans, units of 10^-12."""
    if isinstance(value, decimal.Decimal):
        return int(value.scaleb(12))
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if hasattr(value, "timestamp"):
        return int(pa.scalar(value, pa.timestamp("us", "UTC")).value)
    return value


def column_cells(column):
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    if pa.types.is_decimal(column.type):
        return [None if cell is None else int(cell.scaleb(12)) for cell in column.to_pylist()]
    return column.to_pylist()


def records(data, form, exact, place, findings):
    """[(position, leaf, hash, value or None)] of a records file; every cell is held against its leaf."""
    file = open_file(data, "records", form, exact, place, findings)
    if file is None:
        return None
    out = []
    for g in range(file.metadata.num_row_groups):
        columns = row_group(file, g, form, place, findings)
        if columns is None:
            return None
        for i, (position, leaf, stored) in enumerate(zip(columns["position"], columns["leaf"], columns["leaf_hash"])):
            cells = {name: cells[i] for name, cells in columns.items()}
            out.append((position, leaf, *record(position, leaf, stored, cells, form, place.at(position), findings)))
    return out


def row_group(file, g, form, place, findings):
    """column -> cells of a row group, held against what the footer says of them; None where they cannot be read."""
    try:
        table = file.read_row_group(g, use_threads=False)
        columns = {name: column_cells(table.column(name)) for name, *_ in form.schemas["records"]}
        if any(len(cells) != table.num_rows for cells in columns.values()):
            raise ValueError("columns of different lengths")
    except MemoryError:
        raise
    except BROKEN as error:
        item = f"records row group {g}, column {unreadable(file, g, form)}"
        findings.add("UNREADABLE", place.of(item), "decodable pages", error)
        return None
    try:
        group = file.metadata.row_group(g)
        if table.num_rows != group.num_rows:
            findings.add("STATS_LIE", place.of(f"records footer, row group {g}"), f"{table.num_rows} rows", group.num_rows)
        for c, (name, *_) in enumerate(form.schemas["records"]):
            if name not in ("leaf", "leaf_hash"):
                check_statistics(group.column(c), columns[name], place.of(f"records row group {g}, column {name}"), findings)
    except BROKEN as error:
        findings.add("UNREADABLE", place.of(f"records footer, row group {g}"), "statistics", error)
    return columns


def record(position, leaf, stored, cells, form, where, findings):
    """Hash and value of a leaf; None for the value where it is no leaf."""
    hash_ = tree.leaf_hash(leaf)
    if stored != hash_:
        findings.add("LEAF_MISMATCH", where.of("leaf_hash"), hash_.hex(), stored.hex())
    value = None
    try:
        value = canonical.parse(leaf)
        unknown = leaves.check(form, value)
        if unknown is None:
            findings.add("NOT_JUDGED", where.of("kind"), "a known kind", value["kind"])
        for key in unknown or []:
            findings.add("NOT_JUDGED", where.of("key"), "a known key", key)
    except canonical.NotCanonical as error:
        findings.add("NON_CANONICAL_LEAF", where.of("leaf"), "canonical JSON", error)
    except leaves.Invalid as error:
        findings.add("LEAF_INVALID", where.of("leaf"), "a leaf of version 1", error)
        value = None
    if value is not None:
        for column in form.columns:
            wanted, found = leaves.cell(column, value), cells[column[0]]
            if wanted != found or type(wanted) is not type(found):
                findings.add("COLUMN_NOT_LEAF", where.of(column[0]), wanted, found)
    return hash_, value


def unreadable(file, g, form):
    """The first column of a row group that cannot be read."""
    for name, *_ in form.schemas["records"]:
        try:
            column_cells(file.read_row_group(g, columns=[name], use_threads=False).column(name))
        except BROKEN:
            return name
    return "leaf"


def content_rows(data, form, exact, place, findings):
    """Rows of a content file as dicts, one row group at a time."""
    file = open_file(data, "content", form, exact, place, findings)
    if file is None:
        return
    for g in range(file.metadata.num_row_groups):
        try:
            table = file.read_row_group(g)
        except BROKEN as error:
            findings.add("UNREADABLE", place.of(f"content row group {g}"), "rows", error)
            return
        for row in table.to_pylist():
            if len(row["data"]) > MAX_DATA:
                findings.add("UNREADABLE", place, f"at most {MAX_DATA} bytes", len(row["data"]))
            yield row


def references(data, form, exact, place, findings):
    """sha256 -> (media type, bytes)"""
    out, before = {}, b""
    file = open_file(data, "reference", form, exact, place, findings)
    if file is None:
        return out
    for g in range(file.metadata.num_row_groups):
        try:
            table = file.read_row_group(g)
        except BROKEN as error:
            findings.add("UNREADABLE", place.of(f"reference row group {g}"), "rows", error)
            return out
        for row in table.to_pylist():
            if sha256(row["bytes"]).digest() != row["sha256"]:
                findings.add("REFERENCE_MISMATCH", place, row["sha256"].hex(), sha256(row["bytes"]).hexdigest())
            if row["sha256"] <= before:
                findings.add("ORDER", place, "ascending hashes", row["sha256"].hex())
            before = row["sha256"]
            out[row["sha256"].hex()] = (row["media_type"], row["bytes"])
    return out
