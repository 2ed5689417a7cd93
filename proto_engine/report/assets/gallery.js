// Pictures of the most suspect rows and of the prototypes.
const pictureOf = (row) => (data.pictures[row] ? "data:image/jpeg;base64," + data.pictures[row] : "");
const galleryStep = 60;
let galleryShown = 0;

function tile(row, choose) {
  const k = placeOf(row);
  const item = document.createElement("li");
  const button = document.createElement("button");
  const image = document.createElement("img");
  const caption = document.createElement("span");
  button.type = "button";
  button.dataset.row = row;
  image.src = pictureOf(row);
  image.alt = "";
  image.decoding = "async";
  caption.textContent = given[k] === suggested[k] ? names[given[k]] : `${names[given[k]]} \u2192 ${names[suggested[k]]}`;
  button.title = `row ${row}`;
  button.setAttribute("aria-label", `row ${row}: given ${names[given[k]]}, suggested ${names[suggested[k]]}`);
  button.addEventListener("click", () => choose(k));
  button.append(image, caption);
  item.append(button);
  return item;
}

function showMore(choose) {
  const next = data.gallery.slice(galleryShown, galleryShown + galleryStep);
  element("gallery").append(...next.map((row) => tile(row, choose)));
  galleryShown += next.length;
  const left = data.gallery.length - galleryShown;
  element("more").hidden = left === 0;
  element("more").textContent = `Show more (${left.toLocaleString("en")} left)`;
  markGallery();
}

function markGallery() {
  for (const button of element("gallery").querySelectorAll("button")) {
    const decision = decisions.get(Number(button.dataset.row));
    button.dataset.decision = decision ? decision.kind : "";
  }
}

function showPrototypes() {
  for (const [c, rows] of data.prototypes) {
    const pictured = rows.filter((row) => data.pictures[row]);
    if (!pictured.length) continue;
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    caption.textContent = names[c];
    figure.append(caption);
    for (const row of pictured) {
      const image = document.createElement("img");
      image.src = pictureOf(row);
      image.alt = `prototype of ${names[c]}, row ${row}`;
      image.title = `row ${row}`;
      image.decoding = "async";
      figure.append(image);
    }
    element("prototype-classes").append(figure);
  }
}
