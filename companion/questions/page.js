// JupyterQuiz shows questions to those who see and point. This adds what others need: groups and
// inputs have names, feedback is announced, a number is sent by a button, and what is chosen is
// checked. It runs in the scope of JupyterQuiz's script, and takes away the list for paper.

const control = (tag, properties) => Object.assign(document.createElement(tag), properties);

// One right option: radio buttons. Several: boxes, whose ticks follow JupyterQuiz's own account.
function mendChoice(several, answers, feedback) {
  answers.setAttribute("role", several ? "group" : "radiogroup");
  for (const input of answers.querySelectorAll("input")) {
    input.className = "";
    if (several) input.type = "checkbox";
  }
  answers.addEventListener("click", () => {
    for (const label of answers.children)
      label.querySelector("input").checked = label.className !== "MCButton";
    feedback.innerHTML = feedback.innerHTML.replace(/\[(\d+)\/(\d+)\]$/, "($1 of $2 found)");
  });
}

// A typed number stays when it is looked at again, may be pasted, and is sent by a button, too.
function mendNumber(answers) {
  const [label, input] = answers.children;
  const library = input.onkeypress;
  label.textContent = "Your answer";
  label.htmlFor = input.id;
  input.autocomplete = "off";
  input.onpaste = null;
  input.addEventListener("focus", (event) => event.stopImmediatePropagation(), true);
  const check = () => {
    if (input.value.trim() === "") return;
    library.call(input, { which: 13, keyCode: 13 });
    input.focus({ preventScroll: true });
  };
  input.onkeypress = (event) => (event.key === "Enter" ? check() : library.call(input, event));
  answers.append(control("button", { type: "button", textContent: "Check", onclick: check }));
}

function mend(name, style) {
  const place = document.getElementById(name);
  if (!place?.querySelector(".Quiz")) {
    setTimeout(mend, 50, name, style);
    return;
  }
  place.previousElementSibling.remove();
  document.head.append(control("style", { textContent: style }));
  for (const quiz of place.children) {
    const [question, answers, feedback] = quiz.children;
    const text = question.firstElementChild.id;
    feedback.setAttribute("role", "status");
    if (question.className === "NumericQn") {
      answers.setAttribute("role", "group");
      mendNumber(answers);
    } else {
      mendChoice(question.className === "ManyChoiceQn", answers, feedback);
    }
    answers.setAttribute("aria-labelledby", text);
  }
}
