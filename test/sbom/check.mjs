// node check.mjs DOCUMENT...: CycloneDX's own schema, strictly.
import { readFileSync } from "node:fs";
import { Spec, Validation } from "@cyclonedx/cyclonedx-library";

const documents = process.argv.slice(2);
if (documents.length === 0) throw new Error("no documents given");
for (const document of documents) {
  const text = readFileSync(document, "utf8");
  const version = JSON.parse(text).specVersion;
  if (!Object.values(Spec.Version).includes(version)) throw new Error(`${document}: CycloneDX ${version} is not known`);
  const problem = await new Validation.JsonStrictValidator(version).validate(text);
  if (problem !== null) throw new Error(`${document}: ${JSON.stringify(problem, null, 2)}`);
  console.log(`${document}: CycloneDX ${version}`);
}
