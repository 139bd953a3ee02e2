// node src/build.mjs FILE: writes the dashboard.
import fs from 'node:fs';
import { argv } from 'node:process';
import { build } from './dashboard.mjs';

fs.writeFileSync(argv[2] ?? 'rotatord.json', `${JSON.stringify(build(), null, 2)}\n`);
