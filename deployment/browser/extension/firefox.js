// Firefox's background is a page, and the model lives in it.

import { start } from "./background.js";
import { tagging } from "./engine.js";

start(tagging());
