import { render } from "preact";
import { App } from "./app";
import { askAhead } from "./ask";
import { state } from "./state";
import { firstQuestion } from "./views/Heads";
import "./theme.css";

askAhead("api/about");
if (state.value.view === "heads") askAhead(firstQuestion());

const page = document.getElementById("page");
if (page) render(<App />, page);
