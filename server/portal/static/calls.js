// Requests and answers of the V2 protocol as forms, tables and code. Knows nothing of the page.

export const MOST_COLUMNS = 64;
export const MOST_ROWS = 100;
const SAMPLES = { BOOL: false, BYTES: "" };
const NUMPY = { BOOL: "np.bool_", BYTES: "np.object_", FP16: "np.float16", FP32: "np.float32", FP64: "np.float64" };

// JSON, in which an integer that a number has no room for is a BigInt, where the browser tells its text.

export function parse(text) {
  return JSON.parse(text, (_, value, context) => {
    const isLong = Number.isInteger(value) && !Number.isSafeInteger(value);
    return isLong && /^-?\d+$/.test(context?.source ?? "") ? BigInt(context.source) : value;
  });
}

export function toJson(value) {
  return written(value, (plain) => JSON.stringify(plain));
}

export function toPython(value) {
  const words = new Map([[true, "True"], [false, "False"], [null, "None"]]);
  return written(value, (plain) => words.get(plain) ?? JSON.stringify(plain));
}

function written(value, plain) {
  if (typeof value === "bigint") {
    return String(value);
  }
  if (Array.isArray(value)) {
    return `[${value.map((each) => written(each, plain)).join(", ")}]`;
  }
  if (value !== null && typeof value === "object") {
    const members = Object.entries(value).map(([key, each]) => `${JSON.stringify(key)}: ${written(each, plain)}`);
    return `{${members.join(", ")}}`;
  }
  return plain(value);
}

// What is served

export function modelsOf(served) {
  const models = new Map();
  for (const version of served) {
    models.set(version.model, [...(models.get(version.model) ?? []), version]);
  }
  return [...models].map(([name, versions]) => ({ name, versions }));
}

// The version that most requests reach; of equal ones the newest.
export function mainVersion(model) {
  const answering = model.versions.filter((version) => !version.shadow);
  return answering.reduce((best, each) => (each.weight >= best.weight ? each : best), answering[0] ?? model.versions[0]);
}

export function commitUrl(origin) {
  if (!origin.repository || !origin.commit) {
    return null;
  }
  const pipeline = origin.pipeline ?? "";
  if (pipeline.startsWith(`${origin.repository}/-/`)) {
    return `${origin.repository}/-/commit/${origin.commit}`;
  }
  return pipeline.startsWith(`${origin.repository}/actions/`) ? `${origin.repository}/commit/${origin.commit}` : null;
}

export function isWeb(url) {
  return /^https?:\/\//i.test(url);
}

// Forms: a list of grids of cells, and of tensors that are written as JSON because a grid would not do.

export function formOf(about) {
  const described = about.inputs ?? [];
  const tensors = about.request?.inputs ?? described.map(sample);
  const inputs = tensors.map((tensor) => input(tensor, describedAs(tensor, tensors, described)));
  if (inputs.length > 1 && inputs.every((each) => isColumn(each) && each.rows === inputs[0].rows)) {
    return [gridOf(inputs)];
  }
  return inputs.map((each) => (each.width === null ? { text: toJson(each.tensor) } : gridOf([each])));
}

function describedAs(tensor, tensors, described) {
  const only = tensors.length === 1 && described.length === 1 ? described[0] : undefined;
  return described.find((each) => each.name === tensor.name) ?? only;
}

function sample(described) {
  const shape = described.shape.map((size) => Math.max(size, 1));
  const count = shape.reduce((product, size) => product * size, 1);
  const isSmall = count <= MOST_COLUMNS * MOST_ROWS;
  const data = isSmall ? Array(count).fill(SAMPLES[described.datatype] ?? 0) : [];
  const parameters = described.parameters ? { parameters: described.parameters } : {};
  return { name: described.name, shape, datatype: described.datatype, data, ...parameters };
}

function input(tensor, described) {
  const { shape } = tensor;
  const isTable = shape.length === 1 || shape.length === 2;
  const width = isTable ? (shape[1] ?? 1) : null;
  const fits = isTable && width <= MOST_COLUMNS && shape[0] <= MOST_ROWS && !("parameters" in tensor && isPacked(tensor));
  return { tensor, rows: shape[0], width: fits ? width : null, isFixed: (described?.shape[0] ?? -1) !== -1 };
}

// Text that stands for something else is not written cell by cell.
function isPacked(tensor) {
  return tensor.datatype === "BYTES" && ["base64", "pd_json"].includes(tensor.parameters?.content_type);
}

function isColumn(each) {
  return each.width === 1 && !each.isFixed;
}

function gridOf(inputs) {
  const columns = inputs.flatMap((each, place) =>
    Array.from({ length: each.width }, (_, offset) => ({
      place,
      offset,
      datatype: each.tensor.datatype,
      label: inputs.length > 1 ? each.tensor.name : numbered(offset, each.width),
    })),
  );
  const flat = inputs.map((each) => [each.tensor.data].flat(Infinity));
  const rows = Array.from({ length: inputs[0].rows }, (_, row) =>
    columns.map(({ place, offset }) => flat[place][row * inputs[place].width + offset]),
  );
  return { tensors: inputs.map((each) => each.tensor), columns, rows, isFixed: inputs[0].isFixed };
}

function numbered(offset, width) {
  return width > 1 ? String(offset + 1) : "value";
}

export function titleOf(grid) {
  return grid.tensors.map((tensor) => `${tensor.name} (${tensor.datatype})`).join(", ");
}

// The value of a cell; throws an error that says what to write.
export function valueOf(text, datatype) {
  if (datatype === "BYTES") {
    return text;
  }
  const plain = text.trim();
  if (datatype.includes("INT")) {
    if (!/^[+-]?\d+$/.test(plain)) {
      throw new Error("write a whole number");
    }
    const value = Number(plain);
    return Number.isSafeInteger(value) ? value : BigInt(plain.replace("+", ""));
  }
  const value = Number(plain);
  if (!Number.isFinite(value)) {
    throw new Error("write a number, or nothing if it is missing");
  }
  return plain === "" ? null : value;
}

export function textOf(value) {
  return value === null || value === undefined ? "" : String(value);
}

// The request of a form: of each grid the values by rows, of each text the tensor.
export function requestOf(about, form, filled) {
  const inputs = form.flatMap((part, index) => (part.text === undefined ? tensorsOf(part, filled[index]) : [filled[index]]));
  const { id, ...rest } = about.request ?? {};
  return { ...rest, inputs };
}

function tensorsOf(grid, rows) {
  return grid.tensors.map((tensor, place) => {
    const own = [...grid.columns.keys()].filter((column) => grid.columns[column].place === place);
    const data = rows.flatMap((row) => own.map((column) => row[column]));
    return { ...tensor, shape: [rows.length, ...tensor.shape.slice(1)], data };
  });
}

// Tables of the outputs of an answer: one if all have as many rows.
export function tablesOf(outputs) {
  const shown = outputs.filter((output) => output.shape.length === 1 || output.shape.length === 2);
  const isOne = shown.every((output) => output.shape[0] === shown[0].shape[0]);
  return isOne && shown.length ? [tableOf(shown)] : shown.map((output) => tableOf([output]));
}

function tableOf(outputs) {
  const parts = outputs.map((output) => ({
    name: output.name,
    width: output.shape[1] ?? 1,
    data: [output.data].flat(Infinity),
  }));
  const columns = parts.flatMap(({ name, width }) =>
    Array.from({ length: Math.min(width, MOST_COLUMNS) }, (_, place) => (width > 1 ? `${name} ${place + 1}` : name)),
  );
  const count = outputs[0].shape[0];
  const rows = Array.from({ length: Math.min(count, MOST_ROWS) }, (_, row) =>
    parts.flatMap(({ width, data }) => data.slice(row * width, row * width + Math.min(width, MOST_COLUMNS)).map(textOf)),
  );
  const isWhole = count <= MOST_ROWS && parts.every(({ width }) => width <= MOST_COLUMNS);
  return { columns, rows, isWhole };
}

// Code

export function pathOf(model, version) {
  const own = `/mlapi/v2/models/${encodeURIComponent(model)}`;
  return version ? `${own}/versions/${encodeURIComponent(version)}/infer` : `${own}/infer`;
}

export function curl(url, request) {
  const quoted = (text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;
  return [
    "curl --fail-with-body --header 'Content-Type: application/json' \\",
    `  --data ${quoted(toJson(request))} \\`,
    `  ${quoted(url)}`,
  ].join("\n");
}

export function requests(url, request) {
  return [
    "import requests",
    "",
    `request = ${toPython(request)}`,
    `answer = requests.post(${toPython(url)}, json=request, timeout=60)`,
    "answer.raise_for_status()",
    'print(answer.json()["outputs"])',
  ].join("\n");
}

export function tritonclient(origin, model, version, request, outputs) {
  const pinned = version ? `, model_version=${toPython(version)}` : "";
  return withTriton("http", `${new URL(origin).host}/mlapi`, origin, model, pinned, request, outputs);
}

// The gateway chooses by metadata: what is in the message it does not read.
export function grpc(origin, model, version, request, outputs) {
  const { hostname, port, protocol } = new URL(origin);
  const address = `${hostname}:${port || (protocol === "https:" ? 443 : 80)}`;
  const metadata = { "x-model-name": model, ...(version ? { "x-model-version": version } : {}) };
  return withTriton("grpc", address, origin, model, `, headers=${toPython(metadata)}`, request, outputs);
}

function withTriton(kind, address, origin, model, chosen, request, outputs) {
  const secure = new URL(origin).protocol === "https:" ? ", ssl=True" : "";
  const inputs = request.inputs.map(
    ({ name, shape, datatype }) => `InferInput(${toPython(name)}, ${toPython(shape)}, ${toPython(datatype)})`,
  );
  const parameters = request.parameters ? `, parameters=${toPython(request.parameters)}` : "";
  return [
    "import numpy as np",
    `from tritonclient.${kind} import InferenceServerClient, InferInput`,
    "",
    `client = InferenceServerClient(${toPython(address)}${secure})`,
    `inputs = [${inputs.join(", ")}]`,
    ...request.inputs.flatMap(given),
    `answer = client.infer(${toPython(model)}, inputs${chosen}${parameters})`,
    ...(outputs ?? []).map(({ name }) => `print(answer.as_numpy(${toPython(name)}))`),
    ...(outputs?.length ? [] : ["print(answer.get_response())"]),
  ].join("\n");
}

function given({ shape, datatype, data, parameters }, place) {
  const array = `np.array(${toPython([data].flat(Infinity))}, ${NUMPY[datatype] ?? `np.${datatype.toLowerCase()}`})`;
  const set = `inputs[${place}].set_data_from_numpy(${array}.reshape(${toPython(shape)}))`;
  return parameters ? ["# tritonclient cannot send the parameters of an input.", set] : [set];
}
