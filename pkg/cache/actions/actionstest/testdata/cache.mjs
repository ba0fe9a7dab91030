// Saves or restores with the official client, whose module CLIENT names:
//   node cache.mjs save|restore KEY FILE [PREFIX…]
import { pathToFileURL } from "node:url";

const { saveCache, restoreCache } = await import(pathToFileURL(process.env.CLIENT));
const [command, key, file, ...prefixes] = process.argv.slice(2);

if (command === "save") {
  console.log("saved", await saveCache([file], key));
} else {
  console.log("restored", await restoreCache([file], key, prefixes));
}
